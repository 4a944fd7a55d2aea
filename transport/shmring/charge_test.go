package shmring

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

// want takes n descriptors in a goroutine of its own, and tells how that went.
func want(ctx context.Context, c *charges, n int) <-chan error {
	took := make(chan error, 1)
	go func() { took <- c.takeFiles(ctx, 7, n) }()
	synctest.Wait()
	return took
}

func has(took <-chan error) bool {
	synctest.Wait()
	return len(took) == 1
}

func TestDescriptorsAreChargedInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCharges(10, 10, 5)
		if c.admit(7) != admitted {
			t.Fatal("not admitted")
		}
		four, two, one := want(t.Context(), c, 4), want(t.Context(), c, 2), want(t.Context(), c, 1)
		if !has(four) || has(two) || has(one) {
			t.Error("one that would fit overtook")
		}
		c.releaseFiles(7, 4)
		if !has(two) || !has(one) {
			t.Error("nobody was served")
		}
		c.releaseFiles(7, 3)
		if five := want(t.Context(), c, 5); !has(five) {
			t.Error("not all were given back")
		}
	})
}

func TestWhoGivesUpLetsTheNextOnesPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCharges(10, 10, 5)
		c.admit(7)
		ctx, cancel := context.WithCancelCause(t.Context())
		four, two, one := want(t.Context(), c, 4), want(ctx, c, 2), want(t.Context(), c, 1)
		cancel(errHungUp)
		if !has(two) || !errors.Is(<-two, errHungUp) {
			t.Error("it does not say why it gave up")
		}
		if !has(four) || !has(one) {
			t.Error("the next one still waits")
		}
		c.releaseFiles(7, 5)
		if five := want(t.Context(), c, 5); !has(five) {
			t.Error("not all were given back")
		}
	})
}

func TestUidsAreForgottenWithTheirLastConnection(t *testing.T) {
	c := newCharges(3, 2, 5)
	for i, step := range []struct {
		uid  uint32
		want admission
	}{{1, admitted}, {1, admitted}, {1, tooManyOfUID}, {2, admitted}, {3, tooMany}, {1, tooMany}} {
		if got := c.admit(step.uid); got != step.want {
			t.Errorf("%d: uid %d: %d, want %d", i, step.uid, got, step.want)
		}
	}
	for _, uid := range []uint32{1, 2, 1} {
		c.dismiss(uid)
	}
	if len(c.uids) != 0 || c.all != 0 {
		t.Errorf("%d connections, uids %v", c.all, c.uids)
	}
}
