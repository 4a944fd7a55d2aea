package broker

import (
	"context"
	"io"
	"math"
	"time"

	"github.com/ipcd/ipcd/broker/journal"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// Backup hands out a consistent copy of the journal as of now, file by file: what was acknowledged before the call is
// in it. total is the sum of all sizes. Only admins may.
func (b *Broker) Backup(ctx context.Context, id identity.Identity, file func(name string, size, total int64, content io.Reader) error) error {
	if err := b.access.CheckAdmin(id, "take a backup"); err != nil {
		return err
	}
	if b.journal == nil {
		return reason.New(reason.Unimplemented, "this daemon has no journal: there is nothing to back up")
	}
	total := b.journal.Stats().UsedBytes
	return b.journal.Backup(func(name string, size int64, content io.Reader) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return file(name, size, total, content)
	})
}

// Storage is how the journal fares.
type Storage struct {
	Durable      bool       // there is a journal
	Segments     int        // files that hold records
	Spares       int        // files that are ready to be used next
	UsedBytes    int64      // of records, those that are no longer needed included
	DiskBytes    int64      // of all files
	LiveBytes    int64      // of records that are needed, about
	MemoryBytes  int64      // of messages in memory, about
	Unwritten    int64      // bytes of records that are not on disk yet
	WrittenBytes uint64     // to the journal, since the daemon began
	Commits      uint64     // groups of records made durable together
	SyncNanos    uint64     // time spent in all syncs
	SyncMaxNanos uint64     // longest sync
	SyncTimes    []SyncTime // all syncs, by how long they took
	Full         bool       // sends are refused: no room on disk
	Damaged      []string   // queues that are read-only because the journal is damaged
	HeldCalls    uint64     // that waited so that one identity's flood was not everybody's latency
	HeldTime     time.Duration
	Damage       string // what was found damaged at the start, also where the queues concerned are not known
}

// SyncTime is how many syncs took up to so long, and longer than those before it in the list.
type SyncTime struct {
	UpTo  time.Duration // of the last one of the list: any time
	Syncs uint64
}

// Storage tells how the journal fares.
func (b *Broker) Storage() Storage {
	s := Storage{MemoryBytes: b.totals.memory.Load()}
	s.HeldCalls, s.HeldTime = b.fair.heldBack()
	if b.journal == nil {
		return s
	}
	j := b.journal.Stats()
	s.Durable, s.LiveBytes = true, b.totals.live.Load()
	s.Segments, s.UsedBytes, s.DiskBytes = j.Segments, j.UsedBytes, j.DiskBytes
	s.Spares, s.Unwritten, s.WrittenBytes = j.Spares, j.Unwritten, uint64(j.BytesWritten)
	s.SyncTimes = make([]SyncTime, len(j.SyncTimes))
	for i, n := range j.SyncTimes {
		s.SyncTimes[i] = SyncTime{math.MaxInt64, n}
		if i < len(journal.SyncBounds) {
			s.SyncTimes[i].UpTo = journal.SyncBounds[i]
		}
	}
	s.Commits, s.SyncNanos, s.SyncMaxNanos, s.Full = uint64(j.Commits), uint64(j.SyncTime), uint64(j.SyncTimeMax), j.Full
	s.Damage = b.damage
	for _, q := range b.all() {
		if q.damaged.Load() != nil {
			s.Damaged = append(s.Damaged, q.name)
		}
	}
	return s
}
