package ops

import (
	"cmp"
	"math"
	"runtime"
	"slices"
	"strconv"
	"strings"

	dto "github.com/prometheus/client_model/go"

	"github.com/ipcd/ipcd/broker"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
)

// principals is how many have series of their own among the quotas: those that are nearest to one of their limits.
const principals = 100

var (
	buildInfo = gauge("ipcd_build_info", "1; the labels say which build this is.", "version", "go_version")
	startTime = gauge("ipcd_start_time_seconds", "When the daemon began, since 1970.")
	ready     = gauge("ipcd_ready", "Whether calls are served.")

	messageMemory = gauge("ipcd_message_memory_bytes", "Memory that messages take, about.")

	journalFull      = gauge("ipcd_journal_full", "Whether sends are refused because there is no room on disk.")
	journalSegments  = gauge("ipcd_journal_segments", "Files that hold records.")
	journalSpares    = gauge("ipcd_journal_spare_segments", "Files that are ready to be used next.")
	journalDisk      = gauge("ipcd_journal_disk_bytes", "Of all files.")
	journalUsed      = gauge("ipcd_journal_used_bytes", "Of records, those that are no longer needed included.")
	journalLive      = gauge("ipcd_journal_live_bytes", "Of records that are needed, about.")
	journalUnwritten = gauge("ipcd_journal_unwritten_bytes", "Of records that are not on disk yet.")
	journalWritten   = counter("ipcd_journal_written_bytes_total", "Written to the journal.")
	journalCommits   = counter("ipcd_journal_commits_total", "Groups of records made durable together.")
	journalSyncs     = &family{"ipcd_journal_sync_duration_seconds", "How long fdatasync took.", dto.MetricType_HISTOGRAM, nil}
	journalSyncMax   = gauge("ipcd_journal_sync_longest_seconds", "How long fdatasync took at most, since the daemon began.")

	openConnections = gauge("ipcd_connections", "Connections by door.", "door")
	heldCalls       = counter("ipcd_held_back_calls_total", "Calls that waited for a turn, so that a flood was not everybody's latency.")
	heldSeconds     = counter("ipcd_held_back_seconds_total", "Time that calls waited for a turn.")
	denied          = counter("ipcd_access_denied_total", "Calls that were refused because the caller may not.")

	quotaUsed       = gauge("ipcd_quota_used", "What a principal uses of a resource.", "principal", "resource")
	quotaLimit      = gauge("ipcd_quota_limit", "What a principal may use of a resource.", "principal", "resource")
	quotaPrincipals = gauge("ipcd_quota_principals", "Principals that use something, or have limits of their own.")
)

// daemon writes what is about the daemon as a whole.
func (s *Server) daemon(to *samples) {
	to.add(buildInfo, 1, s.o.Version, runtime.Version())
	to.add(startTime, float64(s.started.UnixNano())/1e9)
	to.add(ready, truth(s.ready() == nil))
	to.add(openConnections, float64(s.connected()), "http")
	if s.o.Connections != nil {
		for door, n := range s.o.Connections() {
			to.add(openConnections, float64(n), door)
		}
	}
	if s.o.Access != nil {
		to.add(denied, float64(s.o.Access.Denied()))
	}
	if s.o.Quotas != nil {
		quotas(to, s.o.Quotas.All())
	}
}

func storage(to *samples, j *broker.Storage) {
	to.add(messageMemory, float64(j.MemoryBytes))
	to.add(heldCalls, float64(j.HeldCalls))
	to.add(heldSeconds, j.HeldTime.Seconds())
	if !j.Durable {
		return
	}
	to.add(journalFull, truth(j.Full))
	to.add(journalSegments, float64(j.Segments))
	to.add(journalSpares, float64(j.Spares))
	to.add(journalDisk, float64(j.DiskBytes))
	to.add(journalUsed, float64(j.UsedBytes))
	to.add(journalLive, float64(j.LiveBytes))
	to.add(journalUnwritten, float64(j.Unwritten))
	to.add(journalWritten, float64(j.WrittenBytes))
	to.add(journalCommits, float64(j.Commits))
	to.add(journalSyncMax, float64(j.SyncMaxNanos)/1e9)
	to.histogram(journalSyncs, j.SyncTimes, float64(j.SyncNanos)/1e9)
}

// quotas writes those of the principals that are nearest to a limit.
func quotas(to *samples, all []quota.Usage) {
	to.add(quotaPrincipals, float64(len(all)))
	slices.SortStableFunc(all, func(a, b quota.Usage) int { return cmp.Compare(fullness(&b), fullness(&a)) })
	named := map[string]bool{}
	for _, u := range all[:min(len(all), principals)] {
		name := strings.ToValidUTF8(principalLabel(u.Who), "\uFFFD")
		if named[name] {
			continue // two names that differ only in what is no UTF-8
		}
		named[name] = true
		for _, e := range u.Entries {
			limit := float64(e.Limit)
			if e.Limit == quota.Unlimited {
				limit = math.Inf(1)
			}
			to.add(quotaUsed, float64(e.Used), name, e.Resource.String())
			to.add(quotaLimit, limit, name, e.Resource.String())
		}
	}
}

// fullness is how much is used of that limit of which most is used: 1 is all of it.
func fullness(u *quota.Usage) (most float64) {
	for _, e := range u.Entries {
		if e.Used > 0 {
			most = max(most, float64(e.Used)/max(float64(e.Limit), 1))
		}
	}
	return most
}

func principalLabel(p identity.Principal) string {
	switch p.Kind {
	case identity.Unix:
		return "uid:" + strconv.FormatUint(uint64(p.UID), 10)
	case identity.Certificate:
		return "certificate:" + p.Name
	}
	return "anonymous"
}
