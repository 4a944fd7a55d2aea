package ops

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"go.uber.org/goleak"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	_ "github.com/ipcd/ipcd/proto/ipcd/v1" // the methods that are known
	"github.com/ipcd/ipcd/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeBroker answers what a test says. A call that the test did not expect panics, and so fails it.
type fakeBroker struct {
	transport.Broker
	queues  []broker.Info
	storage broker.Storage
	list    func(ctx context.Context, id identity.Identity) ([]broker.Info, error) // nil: queues
}

func (f *fakeBroker) ListQueues(ctx context.Context, id identity.Identity, _ string) ([]broker.Info, error) {
	if f.list != nil {
		return f.list(ctx, id)
	}
	return f.queues, nil
}

func (f *fakeBroker) Totals() broker.Totals { return broker.Totals{} }

func (f *fakeBroker) Storage() broker.Storage { return f.storage }

type fakeRings struct {
	transport.Rings
	rings []ring.Info
}

func (f *fakeRings) List(context.Context, identity.Identity, string) ([]ring.Info, error) {
	return f.rings, nil
}

func (f *fakeRings) Totals() ring.Totals {
	return ring.Totals{Rings: len(f.rings), Lanes: 3, Consumers: 2, Bytes: 4096, MemoryLimit: 1 << 30}
}

// newServer returns a server that ends with the test.
func newServer(t *testing.T, o Options) *Server {
	t.Helper()
	s := New(o)
	t.Cleanup(func() { stop(t, s) })
	return s
}

func stop(t *testing.T, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s.Stop(ctx)
	if ctx.Err() != nil {
		t.Error("the server did not stop")
	}
}

// serve serves on an address of its own.
func serve(t *testing.T, s *Server, address string) net.Addr {
	t.Helper()
	l, err := Listen(address)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		stop(t, s)
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return l.Addr()
}

// scraped is one scrape, by metric.
type scraped map[string]*dto.MetricFamily

func scrape(t *testing.T, s *Server) scraped {
	t.Helper()
	var text bytes.Buffer
	if err := s.WriteMetrics(&text); err != nil {
		t.Fatal(err)
	}
	return parse(t, text.Bytes())
}

func parse(t *testing.T, text []byte) scraped {
	t.Helper()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		t.Fatalf("what was served is not the text format: %v\n%.500s", err, text)
	}
	for name, f := range families {
		seen := map[string]bool{}
		for _, m := range f.Metric {
			if labels := fmt.Sprint(m.Label); seen[labels] {
				t.Errorf("%s has two samples with the labels %s", name, labels)
			} else {
				seen[labels] = true
			}
		}
	}
	return families
}

// value returns a sample: labels are names and values in turn.
func (s scraped) value(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	m := s.find(name, labels...)
	if m == nil {
		t.Fatalf("there is no %s with %q", name, labels)
	}
	switch {
	case m.Counter != nil:
		return m.Counter.GetValue()
	case m.Histogram != nil:
		return float64(m.Histogram.GetSampleCount())
	}
	return m.Gauge.GetValue()
}

func (s scraped) find(name string, labels ...string) *dto.Metric {
next:
	for _, m := range s[name].GetMetric() {
		if len(m.Label) != len(labels)/2 {
			continue
		}
		for i, l := range m.Label {
			if l.GetName() != labels[2*i] || l.GetValue() != labels[2*i+1] {
				continue next
			}
		}
		return m
	}
	return nil
}

// want fails the test unless a sample has a value.
func (s scraped) want(t *testing.T, value float64, name string, labels ...string) {
	t.Helper()
	if v := s.value(t, name, labels...); v != value {
		t.Errorf("%s%q is %v instead of %v", name, labels, v, value)
	}
}
