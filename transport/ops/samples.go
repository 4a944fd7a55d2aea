package ops

import (
	"math"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/ipcd/ipcd/broker"
)

// family is a metric: a name, and samples that differ in the values of its labels.
type family struct {
	name, help string
	kind       dto.MetricType
	labels     []string
}

func gauge(name, help string, labels ...string) *family {
	return &family{name, help, dto.MetricType_GAUGE, labels}
}

func counter(name, help string, labels ...string) *family {
	return &family{name, help, dto.MetricType_COUNTER, labels}
}

// samples collects what a scrape finds. A Registry would do that too, but looks for duplicates among tens of thousands
// of samples, of which there are none, and takes four times as much memory for it.
type samples struct {
	families map[*family]*dto.MetricFamily
	free     []sample
}

// sample has all that a value takes in one place.
type sample struct {
	metric  dto.Metric
	gauge   dto.Gauge
	counter dto.Counter
	value   float64
	pairs   [2]*dto.LabelPair
}

// add adds a value, with the values of the family's labels in their order.
func (to *samples) add(f *family, value float64, labels ...string) {
	s := to.sample(f, value)
	pairs := make([]*dto.LabelPair, len(labels))
	for i, l := range labels {
		pairs[i] = pair(f.labels[i], l)
	}
	s.labels(pairs...)
}

// sample adds a value whose labels are still to be given.
func (to *samples) sample(f *family, value float64) *sample {
	if len(to.free) == 0 {
		to.free = make([]sample, 256)
	}
	s := &to.free[0]
	to.free = to.free[1:]
	s.value = value
	if f.kind == dto.MetricType_COUNTER {
		s.counter.Value, s.metric.Counter = &s.value, &s.counter
	} else {
		s.gauge.Value, s.metric.Gauge = &s.value, &s.gauge
	}
	to.metric(f, &s.metric)
	return s
}

func (to *samples) metric(f *family, m *dto.Metric) {
	of := to.families[f]
	if of == nil {
		of = &dto.MetricFamily{Name: &f.name, Help: &f.help, Type: &f.kind}
		to.families[f] = of
	}
	of.Metric = append(of.Metric, m)
}

// labels gives a sample its labels, at most two. They may be shared between samples.
func (s *sample) labels(pairs ...*dto.LabelPair) { s.metric.Label = append(s.pairs[:0], pairs...) }

// pair is a label. All but what is no UTF-8 is escaped where it is written.
func pair(name, value string) *dto.LabelPair {
	value = strings.ToValidUTF8(value, "\uFFFD")
	return &dto.LabelPair{Name: &name, Value: &value}
}

// histogram adds how long syncs took.
func (to *samples) histogram(f *family, times []broker.SyncTime, seconds float64) {
	all, h := uint64(0), &dto.Histogram{SampleSum: &seconds}
	for _, t := range times {
		if all += t.Syncs; t.UpTo != math.MaxInt64 {
			upTo, count := t.UpTo.Seconds(), all
			h.Bucket = append(h.Bucket, &dto.Bucket{UpperBound: &upTo, CumulativeCount: &count})
		}
	}
	h.SampleCount = &all
	to.metric(f, &dto.Metric{Histogram: h})
}
