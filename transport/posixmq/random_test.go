package posixmq

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/transport/posixmq/lanetest"
)

// seeds returns the seed of IPCD_TEST_SEED, or some.
func seeds(t *testing.T) []uint64 {
	if text := os.Getenv("IPCD_TEST_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return []uint64{seed}
	}
	all := make([]uint64, 8)
	for i := range all {
		all[i] = rand.Uint64()
	}
	return all
}

// Natives receive while messages of random priorities are sent and recalled. In the end every message
// was received natively once and is consumed, or was not and is ready: none is lost, none is both.
func TestRandomReceivesAndRecallsLoseNothing_S30(t *testing.T) {
	for _, seed := range seeds(t) {
		t.Run(fmt.Sprintf("IPCD_TEST_SEED=%d", seed), func(t *testing.T) {
			randomRun(t, rand.New(rand.NewPCG(seed, 0)))
		})
	}
}

func randomRun(t *testing.T, r *rand.Rand) {
	const messages, readers = 300, 2
	m, lane := newMQ(t, 2+r.IntN(7), 16), roomy()
	out := startOutlet(t, m, lane, queue.KernelQueue{})
	spread := 1 + r.IntN(5) // of priorities

	var mu sync.Mutex
	received := make(map[string]int)
	receive := func(native *MQ, buffer []byte) bool {
		n, priority, err := native.Receive(buffer)
		if err == unix.EAGAIN {
			return false
		}
		if err != nil {
			t.Error(err)
			return false
		}
		mu.Lock()
		defer mu.Unlock()
		received[fmt.Sprintf("%d %s", priority, buffer[:n])]++
		return true
	}
	stop := make(chan struct{})
	var background sync.WaitGroup
	for range readers {
		native, turns := reopen(t, m), rand.New(rand.NewPCG(r.Uint64(), 1))
		background.Go(func() {
			buffer := make([]byte, 16)
			for {
				select {
				case <-stop:
					return
				default:
				}
				for range turns.IntN(4) {
					receive(native, buffer)
				}
				for range turns.IntN(20) { // let the door do something
					native.Current()
				}
			}
		})
	}
	for i := range messages {
		lane.AwaitAtMost(t, lanetest.Ready, 6) // let the natives keep pace
		lane.Put(queue.Message{Body: fmt.Append(nil, i), Priority: uint16(r.IntN(spread))})
		switch r.IntN(8) {
		case 0:
			if err := out.Recall(context.Background()); err != nil {
				t.Fatal(err)
			}
		case 1:
			lane.Want(true)
			if err := out.Recall(context.Background()); err != nil {
				t.Fatal(err)
			}
			if n := lane.Count(lanetest.Leased); n != 0 {
				t.Fatalf("%d leased after a recall that another receiver asked for", n)
			}
			lane.Want(false)
		}
	}
	close(stop)
	background.Wait()
	out.Stop()

	consumed := 0
	for _, e := range lane.Entries() {
		n := received[fmt.Sprintf("%d %s", e.Priority, e.Body)]
		switch {
		case e.State == lanetest.Consumed && n == 1:
			consumed++
		case e.State == lanetest.Ready && n == 0:
		default:
			t.Errorf("message %d is in state %d and was received %d times", e.Sequence, e.State, n)
		}
	}
	if len(received) != consumed || uint64(consumed) != out.Passed() || out.Skipped() != 0 {
		t.Errorf("%d received, %d consumed, %d passed, %d skipped", len(received), consumed, out.Passed(), out.Skipped())
	}
	if consumed < messages/2 {
		t.Errorf("a dull run: %d of %d were received", consumed, messages)
	}
}
