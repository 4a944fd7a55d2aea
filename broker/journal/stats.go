package journal

import "time"

// Stats are counts since Open, and sizes now.
type Stats struct {
	Segments     int   // in use
	Spares       int   // ready
	UsedBytes    int64 // of the segments in use
	DiskBytes    int64 // of all files
	Unwritten    int64 // bytes appended and not yet durable
	Commits      int64
	Frames       int64
	Syncs        int64
	SyncTime     time.Duration // of all syncs
	SyncTimeMax  time.Duration
	SyncTimes    SyncTimes
	BytesWritten int64
	Full         bool // no further segment for who asks Admit
}

// SyncBounds are the upper bounds of the classes of SyncTimes, rising. What a disk does in microseconds, and what it
// does when it is in trouble.
var SyncBounds = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond, 500 * time.Millisecond,
	time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// SyncTimes counts syncs by how long they took: each in the first class whose bound it did not pass, and in the last
// one what passed all of them.
type SyncTimes [len(SyncBounds) + 1]uint64

func (t *SyncTimes) count(took time.Duration) {
	i := 0
	for i < len(SyncBounds) && took > SyncBounds[i] {
		i++
	}
	t[i]++
}

// Stats returns counts and sizes.
func (j *Journal) Stats() Stats {
	j.mu.Lock()
	defer j.mu.Unlock()
	st := j.stats
	st.Segments, st.Spares = len(j.live), len(j.spares)
	for _, s := range j.live {
		st.UsedBytes += s.end
	}
	st.DiskBytes, st.Unwritten = j.diskBytes, j.unwritten
	st.Full = j.full != nil && len(j.spares) <= j.o.Reserve
	return st
}
