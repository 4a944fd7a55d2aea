//go:build linux

package linear

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/ipcd/ipcd/client"
)

// distort puts a fault into a history, one that no order explains. It reports false where there is no place for one.
func distort(history []porcupine.Operation, random *rand.Rand) ([]porcupine.Operation, bool) {
	all := slices.Clone(history)
	order := random.Perm(len(all))
	fault := random.IntN(4)
	for _, i := range order {
		in, out := all[i].Input.(input), all[i].Output.(output)
		switch {
		case fault == 0 && len(out.got) > 0: // an attempt was counted that there was not
			out.got = slices.Clone(out.got)
			out.got[0].attempts++
		case fault == 1 && len(out.got) > 1: // out of order
			out.got = slices.Clone(out.got)
			slices.Reverse(out.got)
		case fault == 2 && in.kind == ack: // accepted a stale receipt, or refused a good one
			out.stale = !out.stale
		case fault == 3 && in.kind == send && !slices.ContainsFunc(in.messages, func(m sent) bool { return m.delayed }): // it was lost, or came from nowhere
			return slices.Delete(all, i, i+1), true
		default:
			continue
		}
		all[i].Output = out
		return all, true
	}
	return nil, false
}

// at is an operation from one ms to another.
func at(from, to int64, in input, out output) porcupine.Operation {
	return porcupine.Operation{Input: in, Call: from * 1e6, Output: out, Return: to * 1e6}
}

func TestFaultsAreRefused(t *testing.T) {
	one := []sent{{message: 0, typ: 1}}
	two := []sent{{message: 0, typ: 1}, {message: 1, typ: 2, priority: 1}}
	gets := func(attempts, hand int, m int) output {
		return output{got: []got{{message: m, sequence: uint64(m + 1), attempts: attempts, hand: hand, deadline: 100e6}}}
	}
	whole := input{kind: receive, max: 1}
	stored := output{first: 1}
	forever := int64(math.MaxInt64 / 1_000_000)
	for _, c := range []struct {
		name  string
		rules rules
		ops   []porcupine.Operation
		legal bool
	}{
		{"higher priority first", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: two}, stored), at(3, 4, whole, gets(0, 0, 1)), at(5, 6, whole, gets(0, 1, 0)),
		}, true},
		{"lower priority first", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: two}, stored), at(3, 4, whole, gets(0, 0, 0)),
		}, false},
		{"lowest type first where that was asked for", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: two}, stored), at(3, 4, input{kind: receive, max: 1, selector: client.UpTo(5)}, gets(0, 0, 0)),
		}, true},
		{"a type that was not asked for", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: two}, stored), at(3, 4, input{kind: receive, max: 1, selector: client.Not(2)}, gets(0, 0, 1)),
		}, false},
		{"two hold one message", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)), at(5, 6, whole, gets(0, 1, 0)),
		}, false},
		{"nothing where a message is ready", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, output{}),
		}, false},
		{"nothing while a message is sent", rules{9, true}, []porcupine.Operation{
			at(1, 5, input{kind: send, messages: one}, stored), at(3, 4, whole, output{}),
		}, true},
		{"a stale receipt was accepted", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(5, 6, input{kind: ack, hand: 0}, output{}), at(7, 8, input{kind: ack, hand: 0}, output{}),
		}, false},
		{"a good receipt was refused", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)), at(5, 6, input{kind: ack, hand: 0}, output{stale: true}),
		}, false},
		{"a nack counted", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(5, 6, input{kind: nack, hand: 0}, output{}), at(7, 8, whole, gets(1, 1, 0)),
		}, true},
		{"a nack not counted", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(5, 6, input{kind: nack, hand: 0}, output{}), at(7, 8, whole, gets(0, 1, 0)),
		}, false},
		{"a release counted", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(5, 6, input{kind: release, hand: 0}, output{}), at(7, 8, whole, gets(1, 1, 0)),
		}, false},
		{"buried after too many attempts", rules{1, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(5, 6, input{kind: nack, hand: 0}, output{}), at(7, 8, whole, output{}), at(9, 10, input{kind: kick}, output{count: 1}), at(11, 12, whole, gets(1, 1, 0)),
		}, true},
		{"handed out after too many attempts", rules{1, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(5, 6, input{kind: nack, hand: 0}, output{}), at(7, 8, whole, gets(1, 1, 0)),
		}, false},
		{"again after the lease ended", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(100, forever, input{kind: expire, hand: 0, deadline: 100e6}, output{}), at(99, 101, whole, gets(1, 1, 0)),
		}, true},
		{"again before the lease ended", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(100, forever, input{kind: expire, hand: 0, deadline: 100e6}, output{}), at(97, 99, whole, gets(1, 1, 0)),
		}, false},
		{"again before the end of a lease that was touched", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)), at(5, 6, input{kind: touch, hand: 0}, output{deadline: 200e6}),
			at(200, forever, input{kind: expire, hand: 0, deadline: 200e6}, output{}), at(101, 102, whole, gets(1, 1, 0)),
		}, false},
		{"before the delay ended", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: []sent{{typ: 1, delayed: true}}, delay: time.Second}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(1000, forever, input{kind: due}, output{}),
		}, false},
		{"acknowledged and lost in a crash", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, input{kind: crash}, output{}), at(5, 6, input{kind: empty}, output{}),
		}, false},
		{"lost in a crash by a memory queue", rules{9, false}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, input{kind: crash}, output{}), at(5, 6, input{kind: empty}, output{}),
		}, true},
		{"consumed and back after a crash", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, input{kind: receive, max: 1, atOnce: true}, gets(0, nobody, 0)),
			at(5, 6, input{kind: crash}, output{}), at(7, 8, whole, gets(0, 0, 0)),
		}, false},
		{"not known to be acked, and back after a crash", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)), at(5, 7, input{kind: ack, hand: 0, unknown: true}, output{}),
			at(6, 7, input{kind: ack, hand: 0}, output{stale: true}), at(8, 9, input{kind: crash}, output{}), at(10, 11, whole, gets(0, 1, 0)),
		}, true},
		{"not known to be sent, and twice there", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one, unknown: true}, output{}), at(3, 4, input{kind: crash}, output{}),
			at(5, 6, whole, gets(0, 0, 0)), at(7, 8, whole, gets(0, 1, 0)),
		}, false},
		{"a lease that outlives the daemon", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, whole, gets(0, 0, 0)),
			at(5, 6, input{kind: crash}, output{}), at(7, 8, input{kind: ack, hand: 0}, output{}),
		}, false},
		{"a sequence given out twice", rules{9, true}, []porcupine.Operation{
			at(1, 2, input{kind: send, messages: one}, stored), at(3, 4, input{kind: send, messages: []sent{{message: 1, typ: 1}}}, stored),
		}, false},
	} {
		for i := range c.ops {
			in := c.ops[i].Input.(input)
			in.number = i
			if in.kind == due {
				in.delayed = 0
			}
			c.ops[i].Input = in
		}
		if got := porcupine.CheckOperations(c.rules.model(), c.ops); got != c.legal {
			t.Errorf("%s: accepted %v:\n%s", c.name, got, print(c.ops))
		}
	}
}
