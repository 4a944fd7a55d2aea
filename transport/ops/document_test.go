package ops

import (
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
)

// full is a server that has something of everything.
func full(t *testing.T) *Server {
	q := broker.Info{ID: 1, Name: "/jobs", Doors: []broker.DoorStatus{{Direction: "in"}, {Direction: "out"}}}
	quotas := quota.New(0, quota.Config{})
	quotas.Add(identity.User(7), quota.Queues, 1)
	s := newServer(t, Options{
		Broker: &fakeBroker{queues: []broker.Info{q}, storage: broker.Storage{Durable: true,
			SyncTimes: []broker.SyncTime{{UpTo: time.Millisecond}, {UpTo: math.MaxInt64}}}},
		Rings:  &fakeRings{rings: []ring.Info{{ID: 1, Name: "/ticks", Lanes: []ring.LaneInfo{{ID: 1}}, Consumers: []ring.ConsumerInfo{{ID: 2}}}}},
		Access: access.New(access.Policy{}, nil), Quotas: quotas, Version: "v1.2.3",
		Connections: func() map[string]int { return map[string]int{"unix": 1, "tcp": 0, "attach": 0} },
	})
	s.Call("/ipcd.v1.MessageService/Send", "OK", time.Millisecond)
	return s
}

// row is a row of the document's tables: name, type, labels.
var row = regexp.MustCompile("(?m)^\\| `(ipcd_[a-z_]+)` \\| ([a-z]+) \\| ([a-z_, ]*)\\|([^|]*)\\|([^|]*)\\| ([0-9]+\\.[0-9]+) \\|$")

// TestDocumentAndMetricsAgree holds docs/metrics.md against what is served, both ways.
func TestDocumentAndMetricsAgree(t *testing.T) {
	text, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, served []string
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, fmt.Sprintf("%s %s %s", m[1], m[2], strings.TrimSpace(m[3])))
	}
	if n := strings.Count(string(text), "\n| `ipcd_"); n != len(documented) {
		t.Errorf("%d of %d rows are not of the form | `name` | type | labels | unit | meaning | since |", n-len(documented), n)
	}
	for name, f := range scrape(t, full(t)) {
		if strings.HasPrefix(name, "go_") || strings.HasPrefix(name, "process_") {
			continue
		}
		var labels []string
		for _, l := range f.Metric[0].Label {
			labels = append(labels, l.GetName())
		}
		served = append(served, fmt.Sprintf("%s %s %s", name, strings.ToLower(f.GetType().String()), strings.Join(labels, ", ")))
	}
	for _, d := range documented {
		if !slices.Contains(served, d) {
			t.Errorf("documented, and not served so: %s", d)
		}
	}
	for _, m := range served {
		if !slices.Contains(documented, m) {
			t.Errorf("served, and not documented so: %s", m)
		}
	}
}

func TestNamesFollowTheConventions(t *testing.T) {
	var families []*dto.MetricFamily
	for _, f := range scrape(t, full(t)) {
		families = append(families, f)
	}
	problems, err := promlint.NewWithMetricFamilies(families).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}
