package quota

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/limits"
	"github.com/ipcd/ipcd/internal/reason"
	"github.com/ipcd/ipcd/internal/vfs"
)

// Config is what the configuration says of quotas.
type Config struct {
	Default Limits                        // instead of Defaults
	Of      map[identity.Principal]Limits // of some, instead of the default
}

// Table holds everybody's quotas and what is used of them. What operators set wins over the configuration, and that
// over Defaults. Root and the daemon's user have no limits but those that are set for them by name. It is safe for
// concurrent use.
type Table struct {
	daemonUID uint32

	changing sync.Mutex // held by Change; taken before mu
	fs       vfs.FS     // nil: what is set is forgotten at the end
	path     string

	mu       sync.Mutex // guards what follows
	config   Config
	set      map[identity.Principal]Limits // by operators
	accounts map[identity.Principal]*Account
}

// New returns a Table in which nothing is used. daemonUID is whose daemon it is.
func New(daemonUID uint32, c Config) *Table {
	return &Table{daemonUID: daemonUID, config: c, set: map[identity.Principal]Limits{}, accounts: map[identity.Principal]*Account{}}
}

// Account is what one principal uses, and may use. It stays in force for as long as something of it is used.
type Account struct {
	who   identity.Principal
	used  [resources]atomic.Int64
	limit [resources]atomic.Int64
}

// accountsKept is how many accounts there may be before unused ones are forgotten.
const accountsKept = 4096

// Account returns a principal's account.
func (t *Table) Account(p identity.Principal) *Account {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.accountLocked(p)
}

func (t *Table) accountLocked(p identity.Principal) *Account {
	a := t.accounts[p]
	if a == nil {
		a = &Account{who: p}
		t.resolveLocked(a)
		t.accounts[p] = a
	}
	return a
}

// Take charges n of a resource to a principal, or returns QUOTA_EXCEEDED and charges nothing.
func (t *Table) Take(p identity.Principal, r Resource, n int64) error {
	// Under the lock, or the account might be forgotten before it is used.
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.accounts) > accountsKept {
		maps.DeleteFunc(t.accounts, func(_ identity.Principal, a *Account) bool { return a.idle() })
	}
	return t.accountLocked(p).Take(r, n)
}

// Add charges n of a resource, which may be negative, without asking whether that is allowed: for what is there already.
func (t *Table) Add(p identity.Principal, r Resource, n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.accountLocked(p).Add(r, n)
}

// Give takes a charge back.
func (t *Table) Give(p identity.Principal, r Resource, n int64) { t.Add(p, r, -n) }

// Take charges n of a resource, or returns QUOTA_EXCEEDED and charges nothing.
func (a *Account) Take(r Resource, n int64) error {
	for {
		used, limit := a.used[r].Load(), a.limit[r].Load()
		if n > limit-used && n > 0 {
			return a.exceeded(r, used, n, limit)
		}
		if a.used[r].CompareAndSwap(used, used+n) {
			return nil
		}
	}
}

// Add charges n, which may be negative, whatever the limit.
func (a *Account) Add(r Resource, n int64) { a.used[r].Add(n) }

// Used returns how much is charged.
func (a *Account) Used(r Resource) int64 { return a.used[r].Load() }

func (a *Account) exceeded(r Resource, used, n, limit int64) error {
	return reason.New(reason.QuotaExceeded, "%s %d %s, and %d more would pass the quota of %d: free some, or have an operator raise it with ipcctl quota set",
		a.who.Does("has", "have"), used, r.words(), n, limit)
}

// words is what the resource is called in a sentence.
func (r Resource) words() string {
	return [resources]string{"queues", "rings", "bytes in queues", "connections", "calls under way", "receivers"}[r]
}

func (a *Account) idle() bool {
	for r := range a.used {
		if a.used[r].Load() != 0 {
			return false
		}
	}
	return true
}

// Configure puts what the configuration says in force. What is used beyond it stays, and nothing is added to it.
func (t *Table) Configure(c Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.config = c
	for _, a := range t.accounts {
		t.resolveLocked(a)
	}
}

// Set replaces what operators have set for a principal; empty: nothing any more.
func (t *Table) Set(p identity.Principal, l Limits) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(l) == 0 {
		delete(t.set, p)
	} else {
		t.set[p] = maps.Clone(l)
	}
	if a := t.accounts[p]; a != nil {
		t.resolveLocked(a)
	}
}

func (t *Table) resolveLocked(a *Account) {
	for _, r := range Resources() {
		limit, _ := t.limitLocked(a.who, r)
		a.limit[r].Store(limit)
	}
}

// Source says where a limit comes from.
type Source string

// The sources.
const (
	SetByOperator  Source = "set"     // with ipcctl quota
	Configured     Source = "config"  // by name, in the configuration
	DefaultOfAll   Source = "default" // of everybody
	NoLimitOfAdmin Source = "exempt"  // root and the daemon's user
)

// Floor is the least that a principal has of a resource, whatever is said of it. Of connections and calls root and the
// daemon's user keep some: without them nobody could set their quotas any more.
func (t *Table) Floor(p identity.Principal, r Resource) int64 {
	if t.operator(p) && (r == Connections || r == Streams) {
		return limits.QuotaOperatorMin
	}
	return 0
}

func (t *Table) operator(p identity.Principal) bool {
	return p.Kind == identity.Unix && (p.UID == 0 || p.UID == t.daemonUID)
}

func (t *Table) limitLocked(p identity.Principal, r Resource) (int64, Source) {
	if n, ok := t.set[p][r]; ok {
		return max(n, t.Floor(p, r)), SetByOperator
	}
	if n, ok := t.config.Of[p][r]; ok {
		return max(n, t.Floor(p, r)), Configured
	}
	if t.operator(p) {
		return Unlimited, NoLimitOfAdmin
	}
	if n, ok := t.config.Default[r]; ok {
		return n, DefaultOfAll
	}
	return Defaults()[r], DefaultOfAll
}

// Entry is one principal's use of one resource.
type Entry struct {
	Resource Resource
	Used     int64
	Limit    int64 // or Unlimited
	Source   Source
}

// Usage is what a principal uses, resource by resource.
type Usage struct {
	Who     identity.Principal
	Entries []Entry
}

// Usage returns what a principal uses.
func (t *Table) Usage(p identity.Principal) Usage {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.usageLocked(p)
}

func (t *Table) usageLocked(p identity.Principal) Usage {
	u := Usage{Who: p}
	for _, r := range Resources() {
		e := Entry{Resource: r}
		e.Limit, e.Source = t.limitLocked(p, r)
		if a := t.accounts[p]; a != nil {
			e.Used = a.Used(r)
		}
		u.Entries = append(u.Entries, e)
	}
	return u
}

// All returns what everybody uses who uses something or has a limit of its own: users by uid, then certificates by
// name, then anonymous callers.
func (t *Table) All() []Usage {
	t.mu.Lock()
	defer t.mu.Unlock()
	whos := map[identity.Principal]bool{}
	for p, a := range t.accounts {
		whos[p] = whos[p] || !a.idle()
	}
	for p := range t.set {
		whos[p] = true
	}
	for p := range t.config.Of {
		whos[p] = true
	}
	var all []Usage
	for p, shown := range whos {
		if shown {
			all = append(all, t.usageLocked(p))
		}
	}
	slices.SortFunc(all, func(a, b Usage) int { return comparePrincipals(a.Who, b.Who) })
	return all
}

// settings returns what operators have set.
func (t *Table) settings() map[identity.Principal]Limits {
	t.mu.Lock()
	defer t.mu.Unlock()
	return maps.Clone(t.set)
}

func comparePrincipals(a, b identity.Principal) int {
	key := func(p identity.Principal) string {
		switch p.Kind {
		case identity.Unix:
			return fmt.Sprintf("1 %010d", p.UID)
		case identity.Certificate:
			return "2 " + p.Name
		}
		return "3"
	}
	ka, kb := key(a), key(b)
	switch {
	case ka < kb:
		return -1
	case ka > kb:
		return 1
	}
	return 0
}
