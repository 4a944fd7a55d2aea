package ops

import (
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// unknownMethod is the label of all methods that the daemon does not have: a stranger can call whatever it likes, and
// must not make series by that.
const unknownMethod = "unknown"

// callBounds are the classes of calls by how long they take, in seconds.
var callBounds = []float64{
	0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60,
}

// calls counts gRPC calls. The count of one takes no lock and no memory, but for the first of its kind.
type calls struct {
	total   *prometheus.CounterVec
	took    *prometheus.HistogramVec
	methods map[string]*method // does not change
	unknown *method
	codes   map[string]int // by name; does not change
}

// method is one method's series, each made when it is first needed.
type method struct {
	name  string
	took  atomic.Pointer[prometheus.Observer]
	codes [17]atomic.Pointer[prometheus.Counter] // by code
}

func newCalls(r prometheus.Registerer) *calls {
	c := &calls{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ipcd_calls_total", Help: "Calls that have ended, by method and code."}, []string{"method", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ipcd_call_duration_seconds",
			Help: "How long calls took. Streams, and receives that wait, take as long as their callers like.", Buckets: callBounds}, []string{"method"}),
		methods: map[string]*method{}, unknown: &method{name: unknownMethod}, codes: map[string]int{},
	}
	r.MustRegister(c.total, c.took)
	for i := range len(c.unknown.codes) {
		c.codes[codes.Code(i).String()] = i
	}
	protoregistry.GlobalFiles.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for k := range service.Methods().Len() {
				name := string(service.FullName()) + "/" + string(service.Methods().Get(k).Name())
				c.methods[name] = &method{name: name}
			}
		}
		return true
	})
	return c
}

// count counts a call of a method such as "ipcd.v1.MessageService/Send".
func (c *calls) count(name, code string, took time.Duration) {
	m := c.methods[strings.TrimPrefix(name, "/")]
	if m == nil {
		m = c.unknown
	}
	i, ok := c.codes[code]
	if !ok {
		i = int(codes.Unknown)
	}
	count, observe := m.codes[i].Load(), m.took.Load()
	if count == nil || observe == nil {
		made, makes := c.total.WithLabelValues(m.name, codes.Code(i).String()), c.took.WithLabelValues(m.name)
		count, observe = &made, &makes
		m.codes[i].Store(count)
		m.took.Store(observe)
	}
	(*count).Inc()
	(*observe).Observe(took.Seconds())
}
