package ring

import (
	"time"

	"github.com/ipcd/ipcd/internal/shm"
)

// rates keeps samples of a counter, of which watch takes one a second.
type rates struct {
	samples [2]rateSample // the newest first
}

type rateSample struct {
	at    time.Time // zero: none
	count uint64
}

// rateAge is how old a sample should be that a rate is counted from.
const rateAge = 900 * time.Millisecond

func (r *rates) add(s rateSample) { r.samples = [...]rateSample{s, r.samples[0]} }

// since returns how much a second has been counted over about the last second, or the last two.
func (r *rates) since(now rateSample) float64 {
	base := r.samples[0]
	if now.at.Sub(base.at) < rateAge && !r.samples[1].at.IsZero() {
		base = r.samples[1]
	}
	seconds := now.at.Sub(base.at).Seconds()
	// Counters are the members' own: they may go backwards.
	if base.at.IsZero() || seconds < 0.1 || now.count < base.count {
		return 0
	}
	return float64(now.count-base.count) / seconds
}

// sample takes a sample of each live member.
func (rg *ring) sample() {
	all := rg.lookAt(func(m *Member) bool { return m.state == live })
	for i := range all {
		s := &all[i]
		s.err = guarded(func() { s.count = s.member.count(s.memory) })
		s.memory.Release()
	}
	now := time.Now()
	rg.mu.Lock()
	defer rg.mu.Unlock()
	for i := range all {
		if all[i].err == nil {
			all[i].member.rates.add(rateSample{now, all[i].count})
		}
	}
}

// count is the member's counter of messages.
func (m *Member) count(memory *shm.Memory) uint64 {
	if m.role == Producer {
		return shm.ReadLane(memory).Sequence
	}
	return shm.ReadConsumer(memory, m.slot).Received
}

// looked is a member that is looked at without the ring's lock.
type looked struct {
	member *Member
	state  state
	at     time.Time
	rates  rates
	memory *shm.Memory // to be released
	count  uint64
	err    error
}

// lookAt retains the memory of members, lanes first.
func (rg *ring) lookAt(which func(*Member) bool) []looked {
	rg.mu.Lock()
	defer rg.mu.Unlock()
	return rg.lookAtLocked(which)
}

func (rg *ring) lookAtLocked(which func(*Member) bool) []looked {
	var all []looked
	for _, role := range []Role{Producer, Consumer} {
		for _, m := range rg.table(role) {
			if m != nil && m.state != joining && which(m) {
				all = append(all, looked{member: m, state: m.state, at: m.at, rates: m.rates, memory: m.memory.looking.Retain()})
			}
		}
	}
	return all
}
