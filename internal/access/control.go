package access

import (
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

// Of a principal's denials so many a second are logged, and then one of so many: who is refused all the time does not fill
// the log.
const (
	denialsLogged = 10
	denialsPassed = 1000
)

// Control is the policy in force. It is safe for concurrent use.
type Control struct {
	policy atomic.Pointer[Policy]
	denied atomic.Uint64
	log    *zap.Logger
}

// New returns a Control with a policy. log is told of denials; nil: nobody is.
func New(p Policy, log *zap.Logger) *Control {
	if log == nil {
		log = zap.NewNop()
	}
	c := &Control{log: log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, denialsLogged, denialsPassed)
	}))}
	c.Set(p)
	return c
}

// Set puts another policy in force, from the next call on.
func (c *Control) Set(p Policy) { c.policy.Store(&p) }

// Policy returns the policy in force. It is not to be changed.
func (c *Control) Policy() *Policy { return c.policy.Load() }

// Admin reports whether the identity may do everything.
func (c *Control) Admin(id identity.Identity) bool { return c.policy.Load().Admin(id) }

// Allows reports whether the identity has all of the rights wanted. It is for choosing what to show, and logs nothing.
func (c *Control) Allows(id identity.Identity, o Object, want Right) bool {
	return c.policy.Load().Allows(id, o, want)
}

// Check returns ACCESS_DENIED unless the identity has all of the rights wanted, and logs that. It is not for those who
// hold a lock: see Denial.
func (c *Control) Check(id identity.Identity, o Object, want Right) error {
	if err := c.Denial(id, o, want); err != nil {
		return c.Deny(id, err)
	}
	return nil
}

// Denial is Check that logs nothing.
func (c *Control) Denial(id identity.Identity, o Object, want Right) *reason.Error {
	if c.Allows(id, o, want) {
		return nil
	}
	if _, local := id.User(); !local { // whose it is concerns nobody from afar
		return reason.New(reason.AccessDenied, "%v may not %s: no rule grants it", id, want.On(o.Kind)).On(o.Name)
	}
	return reason.New(reason.AccessDenied, "%v may not %s: it belongs to uid %d, gid %d and has mode %#o, and no rule grants it",
		id, want.On(o.Kind), o.OwnerUID, o.GroupGID, o.Mode).On(o.Name)
}

// CheckAdmin returns ACCESS_DENIED unless the identity may do everything. what completes "… may not".
func (c *Control) CheckAdmin(id identity.Identity, what string) error {
	if c.Admin(id) {
		return nil
	}
	return c.Deny(id, reason.New(reason.AccessDenied, "%v may not %s: only root, the daemon's user and members of admin_group may", id, what))
}

// Tell counts and logs an error if it is an ACCESS_DENIED that was not told before: of Denial, or of those who know more
// than a policy does. It is for deferring before a lock is taken.
func (c *Control) Tell(id identity.Identity, err *error) {
	if e, ok := (*err).(*reason.Error); ok && e.Reason == reason.AccessDenied {
		_ = c.Deny(id, e)
	}
}

// Deny counts and logs an ACCESS_DENIED, and returns it. It is not for those who hold a lock.
func (c *Control) Deny(id identity.Identity, err *reason.Error) error {
	c.denied.Add(1)
	// Lines are sampled by their message: each principal has its own, and hides nobody else's.
	c.log.Info("access denied to "+id.Principal().String(), zap.Stringer("who", id), zap.String("why", err.Error()))
	return err
}

// Denied returns how many calls were refused.
func (c *Control) Denied() uint64 { return c.denied.Load() }
