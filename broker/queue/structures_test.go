package queue

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/ipcd/ipcd/internal/reason"
)

// A wheel gives up its members when they are due: none early, none late, whatever the order in which
// they come, go and are spread.
func TestWheelAgainstSortedList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue(nil)
		w := &q.delays
		deadlines := map[uint32]int64{}
		deadline := func(n uint32) int64 { return deadlines[n] }
		now, seq := int64(0), uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"insert": func(t *rapid.T) {
				seq++
				n, s := q.slots.add(seq)
				s.state = Delayed
				q.setDue(s, 0)
				far := rapid.SampledFrom([]int64{-5 * tick, 0, 1, tick, 63 * tick, 64 * tick, 65 * tick, 4096 * tick, 1 << 40, 1 << 55, never, math.MaxInt64 - now}).Draw(t, "distance")
				deadlines[n] = now + far + rapid.Int64Range(-min(max(far, 0), tick), 0).Draw(t, "less")
				if far == never {
					deadlines[n] = never
				}
				q.wheelInsert(w, n, deadlines[n])
			},
			"remove": func(t *rapid.T) {
				if len(deadlines) == 0 {
					t.Skip("empty")
				}
				var all []uint32
				for n := range deadlines {
					all = append(all, n)
				}
				slices.Sort(all)
				n := rapid.SampledFrom(all).Draw(t, "member")
				q.wheelRemove(w, n, deadlines[n])
				delete(deadlines, n)
			},
			"advance": func(t *rapid.T) {
				now += rapid.SampledFrom([]int64{1, tick - 1, tick, 3 * tick, 64 * tick, 5000 * tick, 1 << 41, 1 << 54}).Draw(t, "time")
			},
			"rewind": func(t *rapid.T) {
				now = max(0, now-rapid.SampledFrom([]int64{1, tick, 70 * tick, 1 << 42}).Draw(t, "time"))
				q.wheelRewind(w, now, deadline)
			},
			"": func(t *rapid.T) {
				due := map[uint32]bool{}
				for {
					got := q.wheelDue(w, now, rapid.IntRange(1, 3).Draw(t, "limit"), deadline, nil)
					if len(got) == 0 {
						break
					}
					for _, n := range got {
						due[n] = true
						q.wheelRemove(w, n, deadlines[n])
					}
				}
				for n, d := range deadlines {
					if is := tickOf(d) <= uint64(now)>>tickBits; due[n] != is {
						t.Fatalf("deadline %d at %d: due %v", d, now, due[n])
					}
					if due[n] {
						delete(deadlines, n)
					}
				}
				if w.count != len(deadlines) {
					t.Fatalf("%d members, counter %d", len(deadlines), w.count)
				}
				earliest := uint64(math.MaxUint64)
				for _, d := range deadlines {
					earliest = min(earliest, tickOf(d))
				}
				if e, _, ok := w.earliest(); ok != (len(deadlines) > 0) || ok && e > earliest {
					t.Fatalf("earliest %d, %v; it is %d", e, ok, earliest)
				}
				eachMember := 0
				q.wheelEach(w, func(uint32) { eachMember++ })
				if eachMember != len(deadlines) {
					t.Fatalf("%d members are visited, not %d", eachMember, len(deadlines))
				}
			},
		})
	})
}

func TestTreeAgainstSortedSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var x index
		var all []uint32
		for seq := range uint64(200) {
			n, _ := x.add(seq + 1)
			all = append(all, n)
		}
		var root uint32
		var in []uint32 // by sequence
		order := func(a, b uint32) int { return cmp.Compare(x.at(a).seq, x.at(b).seq) }
		t.Repeat(map[string]func(*rapid.T){
			"toggle": func(t *rapid.T) {
				n := rapid.SampledFrom(all).Draw(t, "slot")
				if at, found := slices.BinarySearchFunc(in, n, order); found {
					root = x.treeRemove(root, n)
					in = slices.Delete(in, at, at+1)
				} else {
					root = x.treeInsert(root, n)
					in = slices.Insert(in, at, n)
				}
			},
			"walk": func(t *rapid.T) {
				from := rapid.Uint64Range(0, 210).Draw(t, "from")
				most := rapid.IntRange(1, 300).Draw(t, "most")
				var got, want []uint32
				done := x.treeWalk(root, from, func(n uint32, s *slot) bool {
					got = append(got, n)
					return len(got) < most
				})
				for _, n := range in {
					if x.at(n).seq >= from && len(want) < most {
						want = append(want, n)
					}
				}
				if !slices.Equal(got, want) || done != (len(want) < most) {
					t.Fatalf("walk from %d: %v, %v instead of %v", from, got, done, want)
				}
			},
			"": func(t *rapid.T) {
				members, err := treeSlots(&x, root)
				if err != nil || !slices.Equal(members, in) {
					t.Fatalf("%v instead of %v: %v", members, in, err)
				}
				first := uint32(0)
				if len(in) > 0 {
					first = in[0]
				}
				if x.treeMin(root) != first {
					t.Fatalf("first %d", x.treeMin(root))
				}
			},
		})
	})
}

// The treap stays shallow although messages come in the order of their sequences.
func TestTreeStaysShallow(t *testing.T) {
	var x index
	var root uint32
	for seq := range uint64(100_000) {
		n, _ := x.add(seq + 1)
		root = x.treeInsert(root, n)
	}
	var depth func(n uint32) int
	depth = func(n uint32) int {
		if n == 0 {
			return 0
		}
		return 1 + max(depth(x.at(n).left), depth(x.at(n).right))
	}
	if d := depth(root); d > 80 {
		t.Errorf("depth %d", d)
	}
}

func TestIndexAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		q := newQueue(nil) // for its invariants
		x := &q.slots
		in := map[uint64]uint32{}
		last := uint64(0)
		sorted := func() (seqs []uint64) {
			for seq := range in {
				seqs = append(seqs, seq)
			}
			slices.Sort(seqs)
			return seqs
		}
		remove := func(seq uint64) {
			x.remove(in[seq])
			delete(in, seq)
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				last += rapid.SampledFrom([]uint64{1, 1, 2, 31, 32, 33, 1000, 1 << 40}).Draw(t, "gap")
				for range rapid.IntRange(1, 100).Draw(t, "run") {
					n, s := x.add(last)
					if s.seq != last || in[last] != 0 || n == 0 {
						t.Fatalf("slot %d for %d", n, last)
					}
					in[last] = n
					last++
				}
			},
			"remove one": func(t *rapid.T) {
				if len(in) > 0 {
					remove(rapid.SampledFrom(sorted()).Draw(t, "sequence"))
				}
			},
			"remove run": func(t *rapid.T) {
				seqs := sorted()
				from := rapid.IntRange(0, len(seqs)).Draw(t, "from")
				for _, seq := range seqs[from:min(len(seqs), from+rapid.IntRange(0, 300).Draw(t, "count"))] {
					remove(seq)
				}
			},
			"scan": func(t *rapid.T) {
				first, until := rapid.Uint64Range(0, last+5).Draw(t, "first"), rapid.Uint64Range(0, last+5).Draw(t, "last")
				budget := rapid.SampledFrom([]int{1, 7, 1000}).Draw(t, "budget")
				removing := rapid.Bool().Draw(t, "remove")
				var got, want []uint64
				for _, seq := range sorted() {
					if seq >= first && seq <= until {
						want = append(want, seq)
					}
				}
				for from, steps := first, 0; ; steps++ {
					looked := 0
					next := x.scan(from, until, budget, func(n uint32, s *slot) bool {
						looked++
						got = append(got, s.seq)
						if removing && s.seq%3 == 0 {
							remove(s.seq)
						}
						return true
					})
					if looked > budget || next != 0 && next <= from {
						t.Fatalf("looked at %d of %d, from %d on to %d", looked, budget, from, next)
					}
					if from = next; next == 0 {
						break
					}
				}
				if !slices.Equal(got, want) {
					t.Fatalf("scan from %d to %d: %v instead of %v", first, until, got, want)
				}
			},
			"": func(t *rapid.T) {
				if err := indexInvariants(q); err != nil {
					t.Fatal(err)
				}
				for seq, n := range in {
					if x.find(seq) != n {
						t.Fatalf("%d is not found", seq)
					}
				}
				for range 5 {
					if seq := rapid.Uint64Range(0, last+50).Draw(t, "sought"); x.find(seq) != in[seq] {
						t.Fatalf("%d is found at %d, not %d", seq, x.find(seq), in[seq])
					}
				}
			},
		})
	})
}

// The directory of a queue that is used as a queue does not grow with what went through it.
func TestIndexForgetsWhatWentThrough(t *testing.T) {
	var x index
	var live []uint32
	keep, _ := x.add(1)
	for seq := uint64(2); seq < 1_000_000; seq++ {
		n, _ := x.add(seq)
		if live = append(live, n); len(live) > 100 {
			x.remove(live[0])
			live = live[1:]
		}
	}
	if x.find(1) != keep || cap(x.keys) > 4096 || len(x.pages) > 16 {
		t.Errorf("%d places in the directory, %d pages", cap(x.keys), len(x.pages))
	}
}

func TestArenaAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var a arena[uint64]
		in := map[uint32]uint64{}
		mark := uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"alloc": func(t *rapid.T) {
				for range rapid.IntRange(1, 150).Draw(t, "count") {
					mark++
					n, v := a.alloc()
					if _, taken := in[n]; taken || n == 0 || *v != 0 {
						t.Fatalf("item %d, taken %v, holds %d", n, taken, *v)
					}
					*v, in[n] = mark, mark
				}
			},
			"release": func(t *rapid.T) {
				one := rapid.Uint64Range(1, 5).Draw(t, "in")
				for n, v := range in {
					if v%one == 0 {
						a.release(n)
						delete(in, n)
					}
				}
			},
			"": func(t *rapid.T) {
				if err := arenaInvariants("arena", &a); err != nil || a.live != len(in) {
					t.Fatalf("%d live, %d items: %v", a.live, len(in), err)
				}
				for n, v := range in {
					if *a.at(n) != v {
						t.Fatalf("item %d holds %d instead of %d", n, *a.at(n), v)
					}
				}
			},
		})
		for n := range in {
			a.release(n)
		}
		chunks := 0
		for _, c := range a.chunks {
			if c.items != nil {
				chunks++
			}
		}
		if chunks > 1 {
			t.Fatalf("%d empty chunks are kept", chunks)
		}
	})
}

// slabUser stores payloads and knows where they are.
type slabUser struct {
	s    slabs
	refs map[uint32]ref
	next uint32
}

func (u *slabUser) store(size int) uint32 {
	u.next++
	u.refs[u.next] = u.s.store(u.next, payload(u.next, size/3), payload(u.next, size-size/3), size)
	return u.next
}

func payload(n uint32, size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(n + n>>8)
	}
	return b
}

func (u *slabUser) free(n uint32) {
	r := u.refs[n]
	delete(u.refs, n)
	u.s.free(r, func(m uint32, to ref) {
		if _, ok := u.refs[m]; !ok {
			panic(fmt.Sprint("moved ", m, ", which is gone"))
		}
		u.refs[m] = to | ref(u.refs[m].charge())
	})
}

func (u *slabUser) check(t interface{ Fatalf(string, ...any) }) {
	live := 0
	for n, r := range u.refs {
		b := u.s.load(r)
		live += entryBytes(len(b))
		if len(b) != r.charge() {
			t.Fatalf("payload %d has %d bytes instead of %d", n, len(b), r.charge())
		}
		for _, c := range b {
			if c != byte(n+n>>8) {
				t.Fatalf("payload %d is damaged", n)
			}
		}
	}
	if live != u.s.live {
		t.Fatalf("%d bytes live, counter %d", live, u.s.live)
	}
}

func TestSlabsKeepPayloads(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := slabUser{refs: map[uint32]ref{}}
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				for range rapid.IntRange(1, 15).Draw(t, "count") {
					u.store(rapid.SampledFrom([]int{0, 1, 7, 8, 100, 100, 100, 3000, slabLarge - slabHeader, slabLarge, slabBytes}).Draw(t, "size"))
				}
			},
			"free": func(t *rapid.T) {
				part := rapid.Uint32Range(1, 10).Draw(t, "part")
				for n := range u.refs {
					if n%10 < part {
						u.free(n)
					}
				}
			},
			"": func(t *rapid.T) { u.check(t) },
		})
	})
}

// Whatever is freed, in whatever order, memory stays below twice what is live, and a slack.
func TestSlabsFollowWhatIsLive(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, order := range map[string]func(ns []uint32){
		"oldest first": func(ns []uint32) {},
		"newest first": func(ns []uint32) { slices.Reverse(ns) },
		"random":       func(ns []uint32) { rng.Shuffle(len(ns), func(i, j int) { ns[i], ns[j] = ns[j], ns[i] }) },
		"every slab's most, then all of half": func(ns []uint32) {
			slices.SortFunc(ns, func(a, b uint32) int {
				rank := func(n uint32) int {
					switch {
					case n > uint32(len(ns))/2 && n%10 != 0:
						return 0
					case n <= uint32(len(ns))/2:
						return 1
					}
					return 2
				}
				return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
			})
		},
	} {
		u := slabUser{refs: map[uint32]ref{}}
		var ns []uint32
		for range 100_000 {
			ns = append(ns, u.store(rng.IntN(500)))
		}
		order(ns)
		worst := 0.0
		for i, n := range ns {
			u.free(n)
			worst = max(worst, float64(u.s.total-2*slabSlack)/float64(u.s.live+1))
			if u.s.total > 2*u.s.live+2*slabSlack {
				t.Errorf("%s: %d bytes for %d live, after %d frees", name, u.s.total, u.s.live, i)
				break
			}
		}
		u.check(t)
		if len(u.s.spares) > slabSpares {
			t.Errorf("%d spares", len(u.s.spares))
		}
	}
}

func TestLargePayloadsAreGivenBack(t *testing.T) {
	u := slabUser{refs: map[uint32]ref{}}
	var ns []uint32
	for range 10 {
		ns = append(ns, u.store(1<<20))
	}
	for _, n := range ns {
		u.free(n)
	}
	if u.s.total > slabBytes {
		t.Errorf("%d bytes are kept", u.s.total)
	}
}

func TestDedupAgainstMap(t *testing.T) {
	for _, start := range []uint64{0, 1<<32 - 2*dedupBlock} {
		rapid.Check(t, func(t *rapid.T) {
			q := newQueue(nil) // for its invariants
			d := &q.ids
			d.base, d.start, d.end = start, start, start // as if so many ids had gone through
			type id struct{ n, at int64 }
			var in []id
			next, now := int64(0), int64(0)
			t.Repeat(map[string]func(*rapid.T){
				"add": func(t *rapid.T) {
					now++
					for range rapid.IntRange(1, 400).Draw(t, "count") {
						next++
						d.add(digestOf(fmt.Sprint(next)), uint64(next), now)
						in = append(in, id{next, now})
					}
				},
				"forget": func(t *rapid.T) {
					before := now - rapid.Int64Range(-1, 6).Draw(t, "age")
					d.forget(before)
					in = slices.DeleteFunc(in, func(x id) bool { return x.at < before })
				},
				"": func(t *rapid.T) {
					if err := dedupInvariants(q); err != nil || d.len() != len(in) {
						t.Fatalf("%d ids instead of %d: %v", d.len(), len(in), err)
					}
					for _, x := range in {
						if seq, ok := d.find(digestOf(fmt.Sprint(x.n))); !ok || seq != uint64(x.n) {
							t.Fatalf("id %d is found as %d, %v", x.n, seq, ok)
						}
					}
					gone := next - int64(len(in))
					for n := max(1, gone-50); n <= gone; n++ {
						if _, ok := d.find(digestOf(fmt.Sprint(n))); ok {
							t.Fatalf("id %d is still known", n)
						}
					}
				},
			})
		})
	}
}

// Ids whose digests lead to the same place of a table are kept apart, also when some are forgotten.
func TestDedupCollisions(t *testing.T) {
	q := newQueue(nil)
	for i := range 40 {
		q.ids.add(digest{1: byte(i), 8: byte(6 + i%3)}, uint64(i+1), int64(i))
	}
	for i := range 40 {
		q.ids.forget(int64(i))
		if err := dedupInvariants(q); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDedupGivesMemoryBack(t *testing.T) {
	var d dedup
	for i := range 100_000 {
		d.add(digestOf(fmt.Sprint(i)), uint64(i), int64(i))
	}
	d.forget(100_000)
	places := 0
	for i := range d.tables {
		places += len(d.tables[i].places)
	}
	if len(d.blocks) > 1 || places > dedupShards*64 {
		t.Errorf("%d blocks and %d places are kept", len(d.blocks), places)
	}
}

func TestTournamentAgainstSearch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rank := map[uint32]int{} // of those that play
		beats := func(a, b uint32) bool { return rank[a] < rank[b] || rank[a] == rank[b] && a < b }
		tm := tournament{beats: beats}
		players := uint32(0)
		best := func(but uint32) (w uint32) {
			for p := range rank {
				if p != but && (w == 0 || beats(p, w)) {
					w = p
				}
			}
			return w
		}
		t.Repeat(map[string]func(*rapid.T){
			"grow": func(t *rapid.T) {
				players += rapid.Uint32Range(1, 9).Draw(t, "more")
				tm.resize(int(players)+1, func(p uint32) bool { _, ok := rank[p]; return ok })
			},
			"update": func(t *rapid.T) {
				if players == 0 {
					t.Skip("nobody")
				}
				p := rapid.Uint32Range(1, players).Draw(t, "player")
				plays := rapid.IntRange(0, 2).Draw(t, "plays") > 0
				if delete(rank, p); plays {
					rank[p] = rapid.IntRange(0, 5).Draw(t, "rank")
				}
				tm.update(p, plays)
			},
			"": func(t *rapid.T) {
				if tm.first() != best(0) {
					t.Fatalf("winner %d instead of %d", tm.first(), best(0))
				}
				for p := range players {
					if got := tm.firstBut(p + 1); got != best(p+1) {
						t.Fatalf("winner but %d: %d instead of %d", p+1, got, best(p+1))
					}
				}
			},
		})
	})
}

func TestReceiptTextRoundTrip_S13(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Receipt{rapid.Uint64().Draw(t, "queue"), rapid.Uint32().Draw(t, "epoch"), rapid.Uint64().Draw(t, "sequence"), rapid.Uint32().Draw(t, "delivery"), rapid.Uint32().Draw(t, "check")}
		if got, err := ParseReceipt(r.String()); got != r || err != nil {
			t.Fatalf("%v reads as %v: %v", r, got, err)
		}
	})
}

func TestGarbageIsNoReceipt_S13(t *testing.T) {
	for _, s := range []string{"", ".", "....", "1.2.3.4", "1.2.3.4.5.6", "a.1.1.1.1", "1.4294967296.1.1.1", "1.1.1.4294967296.1", "18446744073709551616.1.1.1.1",
		"1.1.1.1.zzzzzzzz", "-1.1.1.1.1", "+1.1.1.1.1", "1.1.1.1. 1", "1.1.1.1.1\n", "0x1.1.1.1.1", "1_0.1.1.1.1", string(make([]byte, 1000))} {
		if r, err := ParseReceipt(s); reason.Of(err) != reason.InvalidArgument {
			t.Errorf("%q reads as %v: %v", s, r, err)
		}
	}
}

// Every field of a receipt is bound by its check.
func TestReceiptCheckBindsEveryField_S13(t *testing.T) {
	r := Receipt{Queue: 1, Epoch: 2, Sequence: 3, Delivery: 4}
	check := receiptCheck(5, r)
	for i, o := range []Receipt{{2, 2, 3, 4, 0}, {1, 3, 3, 4, 0}, {1, 2, 4, 4, 0}, {1, 2, 3, 5, 0}, {1, 2, 4, 3, 0}} {
		if receiptCheck(5, o) == check {
			t.Errorf("%d: %+v", i, o)
		}
	}
	if receiptCheck(6, r) == check {
		t.Error("another secret gives the same check")
	}
}

func TestBackoffDoublesToItsMaximum_S15(t *testing.T) {
	s := Settings{BackoffInitial: time.Second, BackoffMax: 10 * time.Second}
	var got []time.Duration
	for n := 1; n <= 6; n++ {
		got = append(got, s.backoff(n))
	}
	want(t, "back-offs", got, []time.Duration{1e9, 2e9, 4e9, 8e9, 10e9, 10e9})
	s = Settings{BackoffInitial: 1, BackoffMax: 366 * 24 * time.Hour}
	want(t, "after very many", s.backoff(65535), s.BackoffMax)
}
