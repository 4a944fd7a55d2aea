package broker

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ipcd/ipcd/broker/queue"
)

// TestDiskFollowsWhatIsLive queues many messages and acks them, in order and at random. The journal must not
// be much larger than what is left.
func TestDiskFollowsWhatIsLive_S25(t *testing.T) {
	const n, size, segment = 4000, 1000, 64 << 10
	for name, c := range map[string]struct {
		shuffle bool
		most    float64 // times what is live, and some segments
	}{"in order": {false, 1.3}, "at random": {true, 2}} {
		t.Run(name, func(t *testing.T) {
			onDisk(t, func(d *disk) {
				d.o.PayloadMemory = 1 // all payloads beyond the first MiB are on disk alone
				w := d.start()
				defer w.Close()
				w.create("/q", func(s *queue.Settings) { s.Lease = 24 * time.Hour })
				body := strings.Repeat("d", size)
				for range n / 10 {
					w.send("/q", body, body, body, body, body, body, body, body, body, body)
				}
				var leased []queue.Delivery
				for len(leased) < n {
					leased = append(leased, w.receive("/q", 500)...)
				}
				if c.shuffle {
					rand.New(rand.NewPCG(5, 6)).Shuffle(n, func(i, j int) { leased[i], leased[j] = leased[j], leased[i] })
				}
				worst := 0.0
				for left := n; left > 0; {
					var acks []Settlement
					for _, m := range leased[left-20 : left] {
						acks = append(acks, Settlement{Receipt: m.Receipt})
					}
					if !c.shuffle {
						acks = acks[:0]
						for _, m := range leased[n-left : n-left+20] {
							acks = append(acks, Settlement{Receipt: m.Receipt})
						}
					}
					out, err := w.Settle(w.ctx, alice, acks)
					w.must(err)
					if len(out.Failures) > 0 {
						t.Fatal(out.Failures[0].Err)
					}
					left -= 20
					pass(50 * time.Millisecond)
					used := float64(w.journal.Stats().UsedBytes)
					worst = max(worst, (used-5*segment)/float64(left*size+1))
					if used > c.most*float64(left*size)+6*segment {
						t.Fatalf("with %d bytes left the journal takes %.0f", left*size, used)
					}
				}
				t.Logf("at most %.2f times what is live, but for five segments", worst)
			})
		})
	}
}
