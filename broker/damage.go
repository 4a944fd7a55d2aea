package broker

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/internal/reason"
)

// DamageError says that the journal does not hold what it promised to.
type DamageError struct {
	Err    error    // where, and what
	Queues []string // concerned, as far as it is known
}

// Error says what was found and what to do.
func (e DamageError) Error() string {
	queues := "which queues are concerned is not known"
	if len(e.Queues) > 0 {
		queues = "concerned: " + strings.Join(e.Queues, ", ")
	}
	return fmt.Sprintf("the journal is damaged: %v; %s. Nothing was deleted. Look with `ipcd fsck`; start with on_damage: quarantine to go on without these queues, or bring back a backup with `ipcd restore`", e.Err, queues)
}

// Unwrap returns what was found.
func (e DamageError) Unwrap() error { return e.Err }

func damagedError(s *served) error {
	why := ""
	if p := s.damaged.Load(); p != nil {
		why = *p
	}
	return reason.New(reason.Damaged, "the queue is read-only, because the journal is damaged: %s; peek shows what is left", why).On(s.name)
}

// DamageFound is a place where a journal is damaged.
type DamageFound struct {
	journal.Damage
	Queues []string // that have, or may have, lost something there, as far as it is known
}

// damages relates places of damage to queues, while a journal is replayed. The journal reports damage of
// a segment before it hands out the frames of that segment.
type damages struct {
	places []*damagedPlace
	// Places by the number of the frame that is hurt there, if it can still be handed out.
	byFrame map[journal.Number][]*damagedPlace
	last    map[uint64]journal.Number // by queue: the last frame with a record of it
}

type damagedPlace struct {
	journal.Damage
	queues map[uint64]bool // known to be hurt
	kept   bool            // the frame was handed out all the same: a payload is hurt, and nothing else lost
}

func newDamages() *damages {
	return &damages{byFrame: map[journal.Number][]*damagedPlace{}, last: map[uint64]journal.Number{}}
}

// add notes damage that hurts the queues ids, and perhaps others.
func (d *damages) add(damage journal.Damage, ids ...uint64) {
	place := &damagedPlace{Damage: damage, queues: map[uint64]bool{}, kept: len(ids) > 0}
	for _, id := range ids {
		place.queues[id] = true
	}
	if frame := damage.After + 1; damage.Offset != 0 && damage.Before >= frame {
		d.byFrame[frame] = append(d.byFrame[frame], place)
	}
	d.places = append(d.places, place)
}

// frame is told of a frame that was handed out, and of the queues in it.
func (d *damages) frame(e journal.Entry, ids map[uint64]bool) {
	for id := range ids {
		d.last[id] = e.Number
	}
	for _, place := range d.byFrame[e.Number] {
		if place.Generation == e.Generation {
			place.kept = true
			maps.Copy(place.queues, ids)
		}
	}
}

// finish names the queues by place, and returns the names of all that are concerned. Where frames are
// lost, a queue without a later record may have lost its last one; those with gaps in their records have
// lost some, wherever that was.
func (d *damages) finish(queues map[uint64]*queue.Queue) (found []DamageFound, concerned []string) {
	all := map[string]bool{}
	for _, place := range d.places {
		for id := range queues {
			if !place.kept && d.last[id] <= max(place.After, place.Before-min(place.Before, 1)) {
				place.queues[id] = true
			}
		}
		f := DamageFound{Damage: place.Damage}
		for id := range place.queues {
			if q := queues[id]; q != nil { // it may have been deleted later
				f.Queues = append(f.Queues, q.Name())
				all[q.Name()] = true
			}
		}
		slices.Sort(f.Queues)
		found = append(found, f)
	}
	for _, q := range queues {
		// Of a memory queue not all records are written.
		if len(found) > 0 && q.Gaps() && q.Settings().Durability == queue.Journal {
			all[q.Name()] = true
		}
	}
	return found, slices.Sorted(maps.Keys(all))
}

// String tells all places.
func (d *damages) String() string {
	all := make([]string, len(d.places))
	for i, place := range d.places {
		all[i] = place.Damage.String()
	}
	return strings.Join(all, "; ")
}
