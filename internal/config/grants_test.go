package config

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/access"
	"github.com/ipcd/ipcd/internal/identity"
	"github.com/ipcd/ipcd/internal/quota"
)

func TestRulesAreResolved(t *testing.T) {
	c := loaded(t, `
rules:
  - queues: [/jobs, "log.*"]
    rings: ["*"]
    users: [alice, 4711]
    groups: [staff, 7]
    certificates: ["spiffe://example.org/*"]
    anonymous: true
    allow: [look, send]
  - {queues: [a], groups: [adm], allow: [receive]}
  - {queues: [a], groups: [adm], allow: [manage, manage]}
`)
	want := []access.Rule{
		{Queues: []string{"jobs", "log.*"}, Rings: []string{"*"}, Users: []uint32{1000, 4711}, Groups: []uint32{50, 7},
			Certificates: []string{"spiffe://example.org/*"}, Anonymous: true, Allow: access.Look | access.Send},
		{Queues: []string{"a"}, Groups: []uint32{4}, Allow: access.Receive | access.Look},
		{Queues: []string{"a"}, Groups: []uint32{4}, Allow: access.Manage},
	}
	if !reflect.DeepEqual(c.Access.Rules, want) {
		t.Errorf("%+v", c.Access.Rules)
	}
}

func TestMistakesInGrantsNameTheLineAndTheKey(t *testing.T) {
	for text, say := range map[string][]string{
		"rules: {queues: [a]}":                                                                 {":1: rules: ", "must be a list"},
		"rules:\n  - {queues: [a], allow: [look]}\n":                                           {":2: rules[1]: ", "for nobody", "anonymous"},
		"rules:\n  - {queues: [a], allow: [look], anonymous: false}\n":                         {":2: rules[1]: ", "for nobody"},
		"rules:\n  - {users: [alice], allow: [look]}\n":                                        {":2: rules[1]: ", "about nothing"},
		"rules:\n  - {queues: [], users: [alice], allow: [look]}\n":                            {":2: rules[1]: ", "about nothing"},
		"rules:\n  - {queues: [a], users: [alice]}\n":                                          {":2: rules[1]: ", "grants nothing"},
		"rules:\n  - queues: [a]\n    users: alice\n    allow: [look]\n":                       {":3: rules[1].users: ", "must be a list"},
		"rules:\n  - queues: [a]\n    users: [alice]\n    allow: look\n":                       {":4: rules[1].allow: ", "[look]", "look, send, receive or manage"},
		"rules:\n  - queues: [a]\n    users: [alice]\n    allow: [look, recieve]\n":            {":4: rules[1].allow[2]: ", "did you mean receive?"},
		"rules:\n  - queues: [a]\n    users:\n      - alice\n      - ghost\n    allow: [look]": {":5: rules[1].users[2]: ", "\"ghost\"", "none of this name"},
		"rules:\n  - queues: [a]\n    groups: [ghosts]\n    allow: [look]":                     {":3: rules[1].groups[1]: ", "\"ghosts\""},
		"rules:\n  - queues: [a]\n    users: ['']\n    allow: [look]":                          {":3: rules[1].users[1]: "},
		"rules:\n  - queues: [a]\n    users: [~]\n    allow: [look]":                           {"rules[1].users[1]: ", "there is nothing"},
		"rules:\n  - queues: [a]\n    users: [broken]\n    allow: [look]":                      {":3: rules[1].users[1]: ", "database is broken"},
		"rules:\n  - queues: [a]\n    users: [4294967296]\n    allow: [look]":                  {":3: rules[1].users[1]: "},
		"rules:\n  - queues: ['[a']\n    users: [alice]\n    allow: [look]":                    {":2: rules[1].queues[1]: ", "malformed"},
		"rules:\n  - queues: ['a b']\n    users: [alice]\n    allow: [look]":                   {":2: rules[1].queues[1]: ", "matches no name"},
		"rules:\n  - queues: ['/a/b']\n    users: [alice]\n    allow: [look]":                  {":2: rules[1].queues[1]: ", "matches no name"},
		"rules:\n  - rings: ['/']\n    users: [alice]\n    allow: [look]":                      {":2: rules[1].rings[1]: ", "malformed"},
		"rules:\n  - rings: [{a: b}]\n    users: [alice]\n    allow: [look]":                   {":2: rules[1].rings[1]: ", "one value"},
		"rules:\n  - rings: [a]\n    certificates: ['[']\n    allow: [look]":                   {":3: rules[1].certificates[1]: ", "malformed"},
		"rules:\n  - alice\n": {":2: rules[1]: ", "keys with values"},
		"rules: [" + strings.Repeat("{},", entriesMax) + "{}]":                 {":1: rules: ", "4097 entries: there may be 4096"},
		"quotas:\n  default:\n    queues: -1\n":                                {":3: quotas.default.queues: ", "0 or more, or unlimited"},
		"quotas:\n  default:\n    queues: 1GiB\n":                              {":3: quotas.default.queues: ", "0 or more, or unlimited"},
		"quotas:\n  default:\n    queued_bytes: lots\n":                        {":3: quotas.default.queued_bytes: ", "no size", "unlimited"},
		"quotas:\n  users:\n    ghost: {queues: 1}\n":                          {":3: quotas.users.ghost: ", "none of this name"},
		"quotas:\n  users:\n    alice: 7\n":                                    {":3: quotas.users.alice: ", "keys with values"},
		"quotas:\n  users:\n    alice: {}\n":                                   {":3: quotas.users.alice: ", "limits nothing"},
		"quotas:\n  users:\n    alice:\n":                                      {":3: quotas.users.alice: ", "limits nothing"},
		"quotas:\n  users:\n    alice: {queues: 1}\n    1000: {rings: 1}\n":    {":4: quotas.users.1000: ", "uid 1000", ":3 too"},
		"quotas:\n  certificates:\n    '': {queues: 1}\n":                      {":3: quotas.certificates.\"\": ", "1 to 1024"},
		"quotas:\n  anonymous:\n    queus: 1\n":                                {":3: quotas.anonymous.queus: ", "did you mean queues?"},
		"quotas:\n  users: {alice: {streams: 9223372036854775808}}":            {":2: quotas.users.alice.streams: "},
		"quotas:\n  users: {alice: {queues: unlimitd}}":                        {":2: quotas.users.alice.queues: ", "unlimited"},
		"quotas:\n  users: {alice: {queues: 1}, alice: {queues: 2}}":           {":2: quotas.users.alice: ", "line 2 too"},
		"quotas:\n  certificates: {a: {queues: 1}}\n  certificates: {a: {}}\n": {":3: quotas.certificates: ", "line 2 too"},
	} {
		expectProblem(t, text, say)
	}
}

func TestOnlyTheMistakeOfARuleIsReported(t *testing.T) {
	for _, mistake := range []string{"queues: [a], users: [ghost], allow: [look]", "queues: ['['], users: [alice], allow: [look]", "queues: [a], users: [alice], allow: [lok]"} {
		if _, err := loadText(t, "rules: [{"+mistake+"}]"); err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: said %v", mistake, err)
		}
	}
}

func TestQuotasAreResolved(t *testing.T) {
	c := loaded(t, `
quotas:
  default: {queues: 100, queued_bytes: 1GiB, streams: unlimited}
  users: {alice: {queues: 7}, 4711: {rings: 0}, root: {connections: 9}}
  certificates: {"spiffe://a": {streams: 3}}
  anonymous: {connections: 2, queued_bytes: unlimited}
`)
	want := quota.Config{
		Default: quota.Limits{quota.Queues: 100, quota.QueuedBytes: 1 << 30, quota.Streams: quota.Unlimited},
		Of: map[identity.Principal]quota.Limits{
			identity.User(1000): {quota.Queues: 7},
			identity.User(4711): {quota.Rings: 0},
			identity.User(0):    {quota.Connections: 9},
			{Kind: identity.Certificate, Name: "spiffe://a"}: {quota.Streams: 3},
			{}: {quota.Connections: 2, quota.QueuedBytes: math.MaxInt64},
		},
	}
	if !reflect.DeepEqual(c.Quotas, want) {
		t.Errorf("%+v", c.Quotas)
	}
}

func TestCertificatesActAsUsers(t *testing.T) {
	c := loaded(t, `tls: {cert: /c, key: /k, client_ca: /a, users: {"spiffe://a": alice, "CN=b,O=c": 1000}}`)
	alice := identity.Identity{Kind: identity.Certificate, Mapped: true, Name: "spiffe://a", UID: 1000, GID: 1000, Groups: []uint32{1000, 50}}
	other := alice
	other.Name = "CN=b,O=c"
	want := TLS{Cert: "/c", Key: "/k", ClientCA: "/a", Users: map[string]identity.Identity{"spiffe://a": alice, "CN=b,O=c": other}}
	if !reflect.DeepEqual(c.TLS, want) || !c.TLS.On() {
		t.Errorf("%+v", c.TLS)
	}
}

// atStart loads what a starting daemon would.
func atStart(t *testing.T, text string, more ...string) Config {
	t.Helper()
	c, err := load(Default(0, env()), write(t, text, more...), people{}, true)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestRemovedUsersDoNotKeepTheDaemonFromStarting(t *testing.T) {
	c := atStart(t, `
admin_group: ghosts
tls: {users: {a: ghost, b: 4711, c: alice}}
rules:
  - {queues: [a], users: [ghost], groups: [ghosts], allow: [look]}
  - {queues: [b], users: [ghost, alice], allow: [look]}
quotas: {users: {ghost: {queues: 1}, broken: {queues: 1}, alice: {queues: 1}}}
queues:
  /a: {owner: ghost, mode: 0600}
  /b: {group: ghosts, mode: 0660}
  /c: {owner: alice}
rings:
  /a: {owner: ghost}
  /b: {group: staff}
`)
	if len(c.Access.AdminGroups) != 0 || c.AdminGroup != "" {
		t.Errorf("admins: %+v, %q", c.Access, c.AdminGroup)
	}
	if len(c.TLS.Users) != 1 || len(c.Quotas.Of) != 1 || len(c.Queues) != 1 || len(c.Rings) != 1 {
		t.Errorf("%+v\n%+v\n%+v\n%+v", c.TLS, c.Quotas, c.Queues, c.Rings)
	}
	if want := []access.Rule{{Queues: []string{"b"}, Users: []uint32{1000}, Allow: access.Look}}; !reflect.DeepEqual(c.Access.Rules, want) {
		t.Errorf("rules: %+v", c.Access.Rules)
	}
	warned := strings.Join(c.Warnings, "\n")
	for _, say := range []string{
		":2: admin_group: group \"ghosts\": there is none of this name: it is left out", ":3: tls.users.a: ", ":3: tls.users.b: ", ":5: rules[1].users[1]", ":5: rules[1].groups[1]",
		":6: rules[2].users[1]", ":7: quotas.users.ghost: ", ":7: quotas.users.broken: ", ":9: queues./a.owner: ", ":9: queues./a: ", ":10: queues./b.group: ", ":13: rings./a.owner: ",
	} {
		if !strings.Contains(warned, say) {
			t.Errorf("not warned of %q in\n%s", say, warned)
		}
	}
}

func TestAdminGroupThatIsGoneDoesNotLeaveAnotherInForce(t *testing.T) {
	c := atStart(t, "admin_group: adm\n", "a.yaml", "admin_group: ghosts\n")
	if len(c.Access.AdminGroups) != 0 {
		t.Errorf("%+v", c.Access)
	}
}

func TestMistakesKeepTheDaemonFromStarting(t *testing.T) {
	for _, text := range []string{"tls: {users: {a: root}}", "rules: [{queues: [a], allow: [look]}]", "log_level: x"} {
		if c, err := load(Default(0, env()), write(t, text), people{}, true); err == nil {
			t.Errorf("%q was taken: %+v", text, c)
		}
	}
}

func TestUsersOfThisHostAreFound(t *testing.T) {
	s := newSystem()
	for _, name := range []string{"root", "0"} {
		if a, err := s.user(name); err != nil || a.uid != 0 || !a.known {
			t.Errorf("%s: %+v, %v", name, a, err)
		}
	}
	if gid, err := s.group("root"); err != nil || gid != 0 {
		t.Errorf("group root: %d, %v", gid, err)
	}
	const nobody = "no such user or group"
	if _, err := s.user(nobody); err != errUnknown {
		t.Errorf("said %v", err)
	}
	if _, err := s.group(nobody); err != errUnknown {
		t.Errorf("said %v", err)
	}
	if a, err := s.user("4000000000"); err != nil || a.uid != 4000000000 || a.known {
		t.Errorf("a uid that has no user: %+v, %v", a, err)
	}
}
