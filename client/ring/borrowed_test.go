//go:build linux

package ring

import (
	"context"
	"errors"
	"testing"

	"github.com/ipcd/ipcd/broker/ring"
)

// Somebody else may delete the ring while a program uses what it was lent. It has called neither Close nor anything else.
func TestDeletedRingDoesNotTakeAwayWhatWasLent(t *testing.T) {
	d := newReal(t)
	d.create(ring.Overwrite)
	p, other := d.producer(), d.producer()
	c := d.consumer(ConsumerOptions{})
	if err := other.Publish(1, []byte("lent")); err != nil {
		t.Fatal(err)
	}
	v, err := c.View(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	claim, err := p.Claim(context.Background(), 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.rings.Delete(context.Background(), d.who, "/ring"); err != nil {
		t.Fatal(err)
	}
	p.m.wantMembers() // as a call would
	c.m.wantMembers()
	<-p.m.ended
	<-c.m.ended
	claim[0] = 1
	if string(v.Payload) != "lent" || !v.Valid() {
		t.Errorf("the view is %q, valid: %v", v.Payload, v.Valid())
	}
	if err := p.Commit(1, 100); !errors.Is(err, ErrDeleted) {
		t.Errorf("commit: %v", err)
	}
	if _, err := c.Next(deadline(t)); !errors.Is(err, ErrDeleted) {
		t.Errorf("next: %v", err)
	}
}
