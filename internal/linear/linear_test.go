//go:build linux

// Package linear records what several clients do with the queues of a real daemon, which is killed and started again in
// between, and has a checker (porcupine) find an order in which one queue, a sequential machine, could have answered so.
// The ends of leases and delays are operations of their own, which may happen at any time after the deadline and never
// before; what a killed daemon did not answer may have been done, or not.
package linear

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ipcd/ipcd/client"
)

var (
	rounds = flag.Int("linear.rounds", 15, "how many daemons clients work on")
	seed   = flag.Uint64("linear.seed", 0, "the first round's seed; 0: by the time")
	show   = flag.String("linear.show", "", "write what is refused to this file, as HTML")
)

const (
	targets    = 6  // queues of a round
	clients    = 3  // of a queue
	operations = 14 // of a client, in each of the two halves of a round
	// checkFor bounds what the checker may take for one history.
	checkFor = 3 * time.Second
	// refuseFor is the same for one with a fault: all orders have to be tried before it is refused.
	refuseFor = 300 * time.Millisecond
	// patience is how long anything may take that must happen. Nothing waits for it to pass unless it fails.
	patience = 60 * time.Second
)

// bin is the daemon under test.
var bin string

func TestMain(m *testing.M) { os.Exit(runAll(m)) }

func runAll(m *testing.M) int {
	flag.Parse()
	dir, err := os.MkdirTemp("", "ipcd-linear")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = filepath.Join(dir, "ipcd")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", bin, "./cmd/ipcd")
	build.Dir = filepath.Join("..", "..")
	if output, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build ipcd: %v\n%s", err, output)
		return 1
	}
	return m.Run()
}

// interlude is what becomes of the daemon in the middle of a round.
type interlude int

const (
	goesOn interlude = iota
	isRestarted
	isKilled
)

func TestHistoriesAreLinearizable(t *testing.T) {
	first := *seed
	if first == 0 {
		first = uint64(time.Now().UnixNano())
	}
	var sum tally
	for i := range *rounds {
		round(t, first+uint64(i), interlude(i%3), &sum)
		if t.Failed() {
			return
		}
	}
	t.Logf("%+v", sum)
	if sum.Checked == 0 || sum.Distorted == 0 || sum.Undecided > sum.Checked/10 || sum.Skipped > sum.Checked/5 {
		t.Errorf("too little was decided on: %+v", sum)
	}
}

// tally says what a run was worth.
type tally struct {
	Checked, Undecided, Skipped             int // histories
	Operations, Deliveries, Expired, Stales int
	Unknown                                 int // outcomes
	Distorted                               int // histories with a fault put in, which were refused
}

func round(t *testing.T, seed uint64, between interlude, sum *tally) {
	random := rand.New(rand.NewPCG(seed, 1))
	h := newHome(t)
	d := h.start()
	defer func() { d.kill() }()
	var all []*target
	setup := h.dial()
	for i := range targets {
		target := newTarget(fmt.Sprintf("/q%d", i), random, between)
		if _, err := setup.CreateQueue(within(t), target.name, target.settings); err != nil {
			t.Fatal(err)
		}
		all = append(all, target)
	}
	half(t, d, all, random, between == isKilled)
	for _, target := range all {
		if between == isKilled {
			target.killed()
		}
	}
	switch between {
	case isRestarted:
		d.stop()
		d = h.start()
	case isKilled:
		d = h.start()
	}
	for _, target := range all {
		target.onDisk = target.durable && between != goesOn
		switch {
		case between == isKilled:
			target.restarted()
		case between == isRestarted && !target.durable: // its messages are gone
			target.killed()
			target.restarted()
		}
	}
	half(t, d, all, random, false)
	var drains sync.WaitGroup
	for _, target := range all {
		w := newWorker(target, clients, random, h.dial())
		drains.Go(func() {
			if err := w.drain(within(t)); err != nil {
				t.Errorf("seed %d: drain %s: %v", seed, target.name, err)
			}
		})
	}
	drains.Wait()
	if t.Failed() {
		return
	}
	d.stop()
	for _, target := range all {
		check(t, seed, target, random, sum)
	}
}

// half lets clients work on all queues at once. If the daemon is to be killed, that happens meanwhile.
func half(t *testing.T, d *daemon, all []*target, random *rand.Rand, killed bool) {
	t.Helper()
	lives, end := context.WithCancel(within(t))
	defer end()
	var working sync.WaitGroup
	for _, target := range all {
		for who := range clients {
			w := newWorker(target, who, random, d.dial())
			w.mortal = killed
			working.Go(func() {
				n := operations
				if killed {
					n *= 3 // until it ends
				}
				if err := w.work(lives, n); err != nil {
					t.Errorf("client %d of %s: %v", who, target.name, err)
				}
			})
		}
	}
	if killed {
		time.Sleep(time.Duration(20+random.IntN(120)) * time.Millisecond) // any moment will do
		d.kill()
		end()
	}
	working.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

func newWorker(target *target, who int, random *rand.Rand, c *client.Client) *worker {
	return &worker{target: target, who: who, random: rand.New(rand.NewPCG(random.Uint64(), uint64(who))), c: c, q: c.Queue(target.name)}
}

// check holds a queue's history against the model.
func check(t *testing.T, seed uint64, target *target, random *rand.Rand, sum *tally) {
	t.Helper()
	if !target.clock.agrees() {
		sum.Skipped++ // somebody sets the clock
		return
	}
	history := target.history(target.rules)
	sum.count(history)
	result, info := porcupine.CheckOperationsVerbose(target.model(), history, checkFor)
	switch result {
	case porcupine.Unknown:
		sum.Undecided++
		return
	case porcupine.Illegal:
		if *show != "" {
			if err := porcupine.VisualizePath(target.model(), info, *show); err != nil {
				t.Error(err)
			}
		}
		t.Fatalf("seed %d, queue %s (%+v): no order of its operations explains what was answered:\n%s", seed, target.name, target.rules, print(history))
	}
	sum.Checked++
	if len(target.kills) > 0 {
		return // attempts are not known exactly
	}
	if distorted, ok := distort(history, random); ok {
		switch porcupine.CheckOperationsTimeout(target.model(), distorted, refuseFor) {
		case porcupine.Ok:
			t.Fatalf("seed %d: the checker accepts a history into which a fault was put:\n%s", seed, print(distorted))
		case porcupine.Illegal:
			sum.Distorted++
		}
	}
}

func (s *tally) count(history []porcupine.Operation) {
	s.Operations += len(history)
	for _, o := range history {
		in, out := o.Input.(input), o.Output.(output)
		s.Deliveries += len(out.got)
		if in.kind == expire {
			s.Expired++
		}
		if in.unknown && in.kind < expire {
			s.Unknown++
		}
		if out.stale {
			s.Stales++
		}
	}
}
