package access

import (
	"fmt"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/reason"
)

var (
	owner   = identity.Identity{Kind: identity.Unix, UID: 1, GID: 10}
	member  = identity.Identity{Kind: identity.Unix, UID: 2, GID: 20, Groups: []uint32{30, 10}}
	other   = identity.Identity{Kind: identity.Unix, UID: 3, GID: 30}
	root    = identity.Identity{Kind: identity.Unix}
	mapped  = identity.Identity{Kind: identity.Certificate, Name: "CN=x", Mapped: true, UID: 1, GID: 10}
	foreign = identity.Identity{Kind: identity.Certificate, Name: "spiffe://a/b"} // and its uid is 0
	nobody  = identity.Identity{}
)

// A mode means what it means for a file: the first class that fits decides, even where the next would allow more.
func TestModeDecidesAsForAFile(t *testing.T) {
	all := Look | Send | Receive
	for _, c := range []struct {
		mode uint32
		id   identity.Identity
		want Right
	}{
		{0o600, owner, all | Manage}, {0o600, member, 0}, {0o600, other, 0},
		{0o640, member, Look}, {0o620, member, Send}, {0o660, member, all}, {0o606, member, 0}, {0o606, other, all},
		{0o066, owner, Manage}, {0o604, other, Look}, {0o602, other, Send},
		{0, root, all | Manage}, {0o600, mapped, all | Manage},
		{0o666, nobody, 0}, {0o666, foreign, 0},
	} {
		var p Policy
		o := Object{Name: "/q", OwnerUID: 1, GroupGID: 10, Mode: c.mode}
		got := Right(0)
		for _, r := range []Right{Look, Send, Receive, Manage} {
			if p.Allows(c.id, o, r) {
				got |= r
			}
		}
		if got != c.want {
			t.Errorf("mode %#o, %v: may %v, want %v", c.mode, c.id, got, c.want)
		}
	}
}

func TestRulesGrantToWhomTheyNameOnWhatTheyCover(t *testing.T) {
	p := Policy{Rules: []Rule{
		{Queues: []string{"a.*"}, Users: []uint32{3}, Allow: Send},
		{Queues: []string{"a.*"}, Groups: []uint32{30}, Allow: Look},
		{Rings: []string{"t?"}, Certificates: []string{"spiffe://a/*"}, Allow: Look | Receive},
		{Queues: []string{"open"}, Anonymous: true, Allow: Send},
	}}
	queue, ring := Object{Name: "/a.b"}, Object{Kind: Ring, Name: "/t1"}
	for _, c := range []struct {
		id   identity.Identity
		o    Object
		want Right
		may  bool
	}{
		{other, queue, Send, true}, {other, queue, Look, true}, {other, queue, Look | Send, true}, {other, queue, Receive, false},
		{other, Object{Name: "/b"}, Send, false}, {other, Object{Kind: Ring, Name: "/a.b"}, Send, false},
		{foreign, ring, Look | Receive, true}, {foreign, ring, Send, false}, {foreign, Object{Kind: Ring, Name: "/t12"}, Look, false},
		{identity.Identity{Kind: identity.Certificate, Name: "spiffe://a/b/c"}, ring, Look, false}, // * crosses no slash
		{nobody, ring, Look, false}, {nobody, Object{Name: "/open"}, Send, true}, {foreign, Object{Name: "/open"}, Send, false},
		{identity.Identity{Kind: identity.Certificate, Name: "CN=y", UID: 3}, queue, Send, false}, // it acts as nobody
	} {
		if got := p.Allows(c.id, c.o, c.want); got != c.may {
			t.Errorf("%v may %v (%v): %v", c.id, c.want, c.o, got)
		}
	}
}

func TestAdmins(t *testing.T) {
	p := Policy{DaemonUID: 3, AdminGroups: []uint32{10}}
	for id, want := range map[*identity.Identity]bool{&root: true, &other: true, &member: true, &mapped: true, &foreign: false, &nobody: false,
		{Kind: identity.Unix, UID: 7}:                                               false,
		{Kind: identity.Certificate, Name: "CN=x", Mapped: true}:                    false, // it acts as uid 0, which the configuration refuses
		{Kind: identity.Certificate, Name: "CN=x", Mapped: true, UID: 3, GID: 1}:    false,
		{Kind: identity.Certificate, Name: "CN=x", UID: 5, Groups: []uint32{10, 3}}: false,
	} {
		if got := p.Admin(*id); got != want {
			t.Errorf("%v: %v", *id, got)
		}
	}
}

func TestDenialsAreLoggedWithWhoWhatAndWhy(t *testing.T) {
	core, logs := observer.New(zapcore.InfoLevel)
	c := New(Policy{}, zap.New(core))
	err := c.Check(other, Object{Name: "/q", OwnerUID: 1, GroupGID: 10, Mode: 0o640}, Receive)
	if reason.Of(err) != reason.AccessDenied {
		t.Fatal(err)
	}
	line := fmt.Sprint(logs.All()[0].ContextMap())
	for _, say := range []string{"uid 3", "/q", "receive from it", "uid 1, gid 10", "0640"} {
		if !strings.Contains(err.Error(), say) || !strings.Contains(line, say) {
			t.Errorf("%q is not in the error %q or not in the log %q", say, err, line)
		}
	}
	for range 10_000 {
		_ = c.CheckAdmin(other, "reload")
	}
	if n := logs.Len(); n > 200 || c.Denied() != 10_001 {
		t.Errorf("%d lines are logged for %d denials", n, c.Denied())
	}
}
