package config

import (
	"math"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
)

// certificateNameLength is how many bytes the name of a certificate may have.
const certificateNameLength = 1024

func putAdminGroup(_ *loader, p *place, name string, v any) {
	p.config.AdminGroup = name
	p.config.Access.AdminGroups = []uint32{uint32(v.(int64))}
}

// putCertificateUser lets a certificate act as a local user. Its name is the key.
func putCertificateUser(l *loader, p *place, name string, v any) {
	path := join("tls.users", name)
	a := v.(account)
	switch {
	case name == "" || len(name) > certificateNameLength:
		l.problem(path, "the name of a certificate has 1 to %d bytes", certificateNameLength)
		return
	case a.uid == 0:
		l.problem(path, "a certificate may not act as root: map it to an ordinary user, who may be in admin_group")
		return
	case !a.known:
		l.unknown(path, "uid %d is not in the user database, so its groups are not known: name a user who is", a.uid)
		return
	}
	store(&p.config.TLS.Users, name, identity.Identity{Kind: identity.Certificate, Mapped: true, Name: name, UID: a.uid, GID: a.gid, Groups: a.groups})
}

// enterRule reads the rule at path.
func enterRule(l *loader, p *place, path string) (*place, func()) {
	r := &access.Rule{}
	problems, leftOut := len(l.problems), l.leftOut
	return &place{rule: r}, func() {
		// Whom it names was left out, or is in a problem already.
		if len(l.problems) > problems {
			return
		}
		nobody := len(r.Users)+len(r.Groups)+len(r.Certificates) == 0 && !r.Anonymous
		if nobody && l.leftOut > leftOut {
			return
		}
		if nobody {
			l.problem(path, "this rule is for nobody: name users, groups, certificates or anonymous: true")
		}
		if len(r.Queues)+len(r.Rings) == 0 {
			l.problem(path, "this rule is about nothing: name queues or rings, such as [\"/jobs\", \"/jobs.*\"]")
		}
		if r.Allow == 0 {
			l.problem(path, "this rule grants nothing: say what it allows, as in allow: [send, receive]")
		}
		if len(l.problems) == problems {
			p.config.Access.Rules = append(p.config.Access.Rules, *r)
		}
	}
}

func putRight(_ *loader, p *place, _ string, v any) {
	p.rule.Allow |= map[string]access.Right{
		"look": access.Look, "send": access.Send, "receive": access.Receive | access.Look, "manage": access.Manage,
	}[v.(string)]
}

// limitKeys are the resources that are limited. defaults says whether they are everybody's.
func limitKeys(defaults bool) []Key {
	meanings := map[quota.Resource]string{
		quota.Queues:      "Queues owned.",
		quota.Rings:       "Rings owned.",
		quota.QueuedBytes: "Bytes of messages in the queues owned, whoever sent them.",
		quota.Connections: "Connections to all sockets.",
		quota.Streams:     "Calls under way: a stream is one.",
		quota.Receivers:   "Receives that wait, and streams of deliveries.",
	}
	var keys []Key
	for _, r := range quota.Resources() {
		k := Key{Name: r.String(), Kind: Limit, Meaning: meanings[r], most: math.MaxInt64,
			put: func(_ *loader, p *place, _ string, v any) { p.limits[r] = v.(int64) }}
		if r == quota.QueuedBytes {
			k.Kind = SizeLimit
		}
		if defaults {
			k.Default = k.number(quota.Defaults()[r])
		}
		keys = append(keys, k)
	}
	return keys
}

func enterUserQuota(l *loader, p *place, name string) (*place, func()) {
	a, ok := l.user(join("quotas.users", name), name)
	if !ok {
		return nobodysQuota()
	}
	return l.enterQuota(p, identity.User(a.uid), join("quotas.users", name))
}

func enterCertificateQuota(l *loader, p *place, name string) (*place, func()) {
	path := join("quotas.certificates", name)
	if name == "" || len(name) > certificateNameLength {
		l.problem(path, "the name of a certificate has 1 to %d bytes", certificateNameLength)
		return nobodysQuota()
	}
	return l.enterQuota(p, identity.Principal{Kind: identity.Certificate, Name: name}, path)
}

func enterAnonymousQuota(l *loader, p *place, _ string) (*place, func()) {
	return l.enterQuota(p, identity.Principal{}, "quotas.anonymous")
}

// nobodysQuota reads limits for what mistakes there are in them.
func nobodysQuota() (*place, func()) { return &place{limits: quota.Limits{}}, func() {} }

// enterQuota reads the limits of one principal, who may go by a name and by a number.
func (l *loader) enterQuota(p *place, who identity.Principal, path string) (*place, func()) {
	if first, there := l.limited[who]; there {
		l.problem(path, "the quota of %v stands at %v too: leave one", who, first)
		return nil, nil
	}
	l.limited[who] = origin{file: l.file, line: l.line}
	inner := &place{limits: quota.Limits{}}
	problems := len(l.problems)
	return inner, func() {
		if len(inner.limits) == 0 && len(l.problems) == problems {
			l.problem(path, "this quota limits nothing: name queues, queued_bytes or another resource")
		}
		p.config.Quotas.Of[who] = inner.limits
	}
}
