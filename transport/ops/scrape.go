package ops

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/broker/ring"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
)

// metrics is what scrapes remember. Only the scrape that runs uses it.
type metrics struct {
	queues *table[seenQueue]
	rings  *table[seenRing]
	counts ringCounts
	size   int // bytes of the text before

	scrapes, failures prometheus.Counter
	took              prometheus.Gauge
}

func (m *metrics) register(s *Server) {
	m.queues, m.rings = newQueueTable(), newRingTable()
	m.counts.back = s.started.Add(limits.RingAdoptWindow)
	if s.o.Broker != nil {
		// A failure is not worth more than sums that begin with what is there: the scrapes will tell.
		infos, _ := s.o.Broker.ListQueues(s.closing, root, "")
		m.queues.begin(see(infos, &broker.Storage{}, s.started))
	}
	m.scrapes = prometheus.NewCounter(prometheus.CounterOpts{Name: "ipcd_scrapes_total", Help: "Times that these metrics were collected, this time included."})
	m.failures = prometheus.NewCounter(prometheus.CounterOpts{Name: "ipcd_scrape_failures_total", Help: "Times that something could not be collected."})
	m.took = prometheus.NewGauge(prometheus.GaugeOpts{Name: "ipcd_scrape_last_duration_seconds", Help: "How long the collection before this one took."})
	s.registry.MustRegister(m.scrapes, m.failures, m.took, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
}

// root sees everything.
var root = identity.Identity{Kind: identity.Unix}

// snapshot is what the broker and the rings answered to one scrape.
type snapshot struct {
	at      time.Time
	queues  []broker.Info
	storage broker.Storage
	broker  broker.Totals
	rings   []ring.Info
	totals  *ring.Totals // nil: not known
}

// totaller is Rings that know what they all take.
type totaller interface{ Totals() ring.Totals }

func (s *Server) snapshot(ctx context.Context) (*snapshot, error) {
	n := &snapshot{at: time.Now(), storage: s.o.Broker.Storage(), broker: s.o.Broker.Totals()}
	var err error
	if n.queues, err = s.o.Broker.ListQueues(ctx, root, ""); err != nil {
		return nil, fmt.Errorf("list queues: %w", err)
	}
	if s.o.Rings == nil {
		return n, nil
	}
	if n.rings, err = s.o.Rings.List(ctx, root, ""); err != nil {
		return nil, fmt.Errorf("list rings: %w", err)
	}
	if t, ok := s.o.Rings.(totaller); ok {
		totals := t.Totals()
		n.totals = &totals
	}
	return n, nil
}

// gather returns what is kept from scrape to scrape and what a snapshot says, by name. An error is about metrics that
// are missing.
func (s *Server) gather(n *snapshot) ([]*dto.MetricFamily, error) {
	to, m := &samples{families: map[*family]*dto.MetricFamily{}}, &s.metrics
	s.daemon(to)
	storage(to, &n.storage)

	queues := see(n.queues, &n.storage, n.at)
	to.add(queueCount, float64(len(queues)))
	to.add(queuesForNow, float64(n.broker.Temporary))
	to.add(lateReplies, float64(n.broker.LateReplies))
	to.add(queuesBeyond, float64(m.queues.collect(to, queues)))

	rings := m.counts.see(n.rings)
	to.add(ringCount, float64(len(rings)))
	to.add(ringsBeyond, float64(m.rings.collect(to, rings)))
	if t := n.totals; t != nil {
		to.add(ringMemory, float64(t.Bytes))
		to.add(ringMemoryLimit, float64(t.MemoryLimit))
		to.add(ringMembersOfAll, float64(t.Lanes), "lane")
		to.add(ringMembersOfAll, float64(t.Consumers), "consumer")
	}
	all, err := s.registry.Gather()
	all = slices.AppendSeq(all, maps.Values(to.families))
	slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
	return all, err
}

// scrape returns all metrics as text. Who asks while a scrape runs gets its result.
func (s *Server) scrape(ctx context.Context) ([]byte, error) {
	return s.scraping.do(ctx, s, limits.ScrapeTimeout, "the scrape", s.collect)
}

func (s *Server) collect(ctx context.Context) ([]byte, error) {
	m, began := &s.metrics, time.Now()
	m.scrapes.Inc()
	n, err := s.snapshot(ctx)
	if err != nil {
		m.failures.Inc()
		return nil, err
	}
	families, err := s.gather(n)
	if err != nil { // the rest is better than nothing
		m.failures.Inc()
		s.log.Error("some metrics could not be collected", zap.Error(err))
	}
	text := bytes.NewBuffer(make([]byte, 0, m.size+m.size/8))
	to := expfmt.NewEncoder(text, expfmt.NewFormat(expfmt.TypeTextPlain))
	for _, f := range families {
		if err := to.Encode(f); err != nil {
			return nil, fmt.Errorf("write metrics: %w", err)
		}
	}
	m.size = text.Len()
	m.took.Set(time.Since(began).Seconds())
	return text.Bytes(), nil
}

// WriteMetrics writes all metrics in the text format of Prometheus, version 0.0.4.
func (s *Server) WriteMetrics(w io.Writer) error {
	text, err := s.scrape(context.Background())
	if err != nil {
		return err
	}
	_, err = w.Write(text)
	return err
}
