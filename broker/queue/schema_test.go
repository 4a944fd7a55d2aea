package queue

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/ipcd/ipcd/internal/limits"
)

func versions(q *Queue) (all []uint32) {
	for _, s := range q.Schemas() {
		all = append(all, s.Version)
	}
	return all
}

func TestSchemaVersionsRiseAndAreNeverUsedTwice(t *testing.T) {
	q := newQueue(nil)
	want(t, "version", q.SchemaVersion(), uint32(0))
	descriptors, types := []byte("one"), []TypeSchema{{7, "acme.Order", true}}
	s := q.AddSchema(at(5), descriptors, types)
	want(t, "first", s, Schema{1, at(5).Wall, []byte("one"), []TypeSchema{{7, "acme.Order", true}}})
	descriptors[0], types[0].Type = 'x', 8 // they are the caller's
	want(t, "kept", q.Schemas(), []Schema{s})
	q.AddSchema(at(0), []byte("two"), nil)
	want(t, "versions", versions(q), []uint32{1, 2})
	if q.SchemaBytes() < 6 {
		t.Errorf("%d bytes", q.SchemaBytes())
	}
	q.RemoveSchemas(at(0))
	want(t, "after removal", []any{versions(q), q.SchemaBytes(), q.SchemaVersion()}, []any{[]uint32(nil), int64(0), uint32(0)})
	want(t, "next", q.AddSchema(at(0), []byte("three"), nil).Version, uint32(3))
}

func TestOnlyTheLastSchemaVersionsAreKept(t *testing.T) {
	q := newQueue(nil)
	for range limits.SchemaVersions + 5 {
		q.AddSchema(at(0), []byte("x"), nil)
	}
	got := versions(q)
	want(t, "number, first, last", []any{len(got), got[0], got[len(got)-1]}, []any{limits.SchemaVersions, uint32(6), uint32(limits.SchemaVersions + 5)})
}

// A version that somebody holds does not change under his hands.
func TestSchemasThatWereHandedOutStay(t *testing.T) {
	q := newQueue(nil)
	for range limits.SchemaVersions {
		q.AddSchema(at(0), []byte("x"), nil)
	}
	held := q.Schemas()
	before := fmt.Sprint(held)
	q.AddSchema(at(0), []byte("y"), nil)
	q.RemoveSchemas(at(0))
	q.AddSchema(at(0), []byte("z"), nil)
	want(t, "held", fmt.Sprint(held), before)
}

// Whatever of the journal was given up and kept anew: the schemas come back, and the next version is a new one.
func TestSchemasOutliveTheSegmentsTheyWereWrittenIn(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	for range 50 {
		q := newQueue(func(s *Settings) { s.Durability = Durability(r.IntN(2)) })
		journal := newTape(q, at(0))
		for range 1 + r.IntN(60) {
			switch r.IntN(5) {
			case 0:
				journal.rotate()
			case 1:
				journal.free(at(0), 10)
			case 2:
				if r.IntN(4) == 0 {
					q.RemoveSchemas(at(0))
				}
			default:
				q.AddSchema(at(0), fmt.Append(nil, r.IntN(1000)), []TypeSchema{{r.Int64N(10) + 1, "m", true}})
			}
		}
		again := journal.loaded(t)
		want(t, fmt.Sprintf("seed %d: schemas", seed), []any{again.schemas.all, again.schemas.last, again.schemas.bytes}, []any{q.schemas.all, q.schemas.last, q.schemas.bytes})
	}
}

// Where a version lies of which that is not known is no reason to lose it.
func TestSchemasThatLieNobodyKnowsWhereAreKept(t *testing.T) {
	q, again := newQueue(nil), NewLoading(1)
	q.Emit = func(r *Record) {
		if err := replayOne(again, r); err != nil {
			t.Fatal(err)
		}
	}
	q.KeepBase(at(0))
	q.AddSchema(at(0), []byte("x"), nil)
	if err := again.Finish(); err != nil {
		t.Fatal(err)
	}
	want(t, "kept", again.KeepSchemas(at(0), 1), true)
}
