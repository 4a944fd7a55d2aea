//go:build linux

package ring

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ipcd/ipcd/internal/attach"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
)

func TestWrongSelectionsOfTypesAreRefused(t *testing.T) {
	f := newFake(t, nil)
	many := slices.Repeat([]int64{1}, limits.SelectorTypes)
	for _, types := range [][]int64{{0}, {1, -1}, append(slices.Clone(many), 2)} {
		c, err := NewConsumer(deadline(t), "/ring", ConsumerOptions{Attach: f.path, Types: types})
		var e *Error
		if !errors.Is(err, ErrInvalidArgument) || !errors.As(err, &e) || e.Ring != "/ring" {
			t.Errorf("%d types, from %d on: %v", len(types), types[0], err)
		}
		if c != nil {
			c.Close()
		}
	}
	f.consumer(t, ConsumerOptions{Types: many})
}

func TestRingIsNamedOnce(t *testing.T) {
	daemon := reason.New(reason.RingNotFound, "there is no such ring").On("/ring").Error()
	for _, message := range []string{"there is no such ring", daemon, "/ring: " + daemon} {
		e := newError(reason.RingNotFound, "%s", message).on("/ring").on("/ring")
		if e.Error() != "/ring: there is no such ring" || e.Message != "there is no such ring" {
			t.Errorf("%q becomes %q, with the message %q", message, e.Error(), e.Message)
		}
	}
}

// journal keeps what a handle says.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) log(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) has(word string) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.ContainsFunc(j.lines, func(line string) bool { return strings.Contains(line, word) })
}

func TestLinesOfTheLogNameTheRingOnce(t *testing.T) {
	f := newFake(t, nil)
	j := new(journal)
	c, err := NewConsumer(deadline(t), "/ring", ConsumerOptions{Attach: f.path, Logger: j.log})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f.stop()
	f.refuse(attach.KindAdopt, reason.New(reason.ShuttingDown, "not now").On("/ring"))
	f.start()
	f.await("the handle says why it is not attached", func() bool { return j.has("not now") })
	f.refuse(attach.KindAdopt, reason.New(reason.RingDeleted, "the ring was deleted").On("/ring"))
	if _, err := c.Next(deadline(t)); !errors.Is(err, ErrDeleted) || strings.Count(err.Error(), "/ring") != 1 {
		t.Errorf("deleted: %v", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, line := range j.lines {
		if strings.Count(line, "/ring: ") != 1 {
			t.Errorf("%q does not name the ring once", line)
		}
	}
}

func TestKernelWithoutFutexWaitvIsTold(t *testing.T) {
	j := new(journal)
	m := &membership{name: "/ring", logger: j.log}
	m.tellHowItWaits(true)
	if len(j.lines) != 0 {
		t.Errorf("told of a kernel that has it: %q", j.lines)
	}
	m.tellHowItWaits(false)
	if len(j.lines) != 1 || !j.has("futex_waitv(2)") || !j.has("each millisecond") {
		t.Errorf("told %q", j.lines)
	}
}
