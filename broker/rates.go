package broker

import (
	"time"

	"github.com/ipcd/ipcd/broker/queue"
)

const (
	rateWindow  = 10 * time.Second
	rateSamples = 12
)

// rates keeps a counter sample a second, for rates over the last ten seconds or so.
type rates struct {
	samples [rateSamples]rateSample
	newest  int
}

type rateSample struct {
	at                        int64 // monotonic time, ns; 0: none
	sent, delivered, consumed uint64
}

func sampleOf(now queue.Instant, s *queue.Stats) rateSample {
	return rateSample{now.Mono, s.Sent, s.Delivered, s.Consumed}
}

// stale reports whether it is time for another sample.
func (r *rates) stale(now queue.Instant) bool {
	return now.Mono-r.samples[r.newest].at >= int64(time.Second)
}

func (r *rates) add(s rateSample) {
	r.newest = (r.newest + 1) % rateSamples
	r.samples[r.newest] = s
}

// since returns the messages a second since the newest sample that is at least the window old, or the
// oldest there is.
func (r *rates) since(now rateSample) (sent, delivered, consumed float64) {
	var base rateSample
	for i := range rateSamples {
		s := r.samples[(r.newest+rateSamples-i)%rateSamples]
		if s.at == 0 {
			break
		}
		base = s
		if now.at-s.at >= int64(rateWindow) {
			break
		}
	}
	seconds := float64(now.at-base.at) / float64(time.Second)
	if base.at == 0 || seconds < 0.1 {
		return 0, 0, 0
	}
	// What was counted shortly after a sample long ago would show for long: let it fade.
	if seconds > 2*rateWindow.Seconds() {
		return 0, 0, 0
	}
	return float64(now.sent-base.sent) / seconds, float64(now.delivered-base.delivered) / seconds, float64(now.consumed-base.consumed) / seconds
}
