package main

import (
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/reason"
	ipcdv1 "github.com/ipcd/ipcd/proto/ipcd/v1"
)

func TestChownSendsOnlyWhatIsNamed(t *testing.T) {
	f := jobs(t)
	for owner, want := range map[string]string{
		"12":      `{"name":"/jobs","settings":{"ownerUid":12},"updateMask":"ownerUid"}`,
		"root:34": `{"name":"/jobs","settings":{"ownerUid":0,"groupGid":34},"updateMask":"ownerUid,groupGid"}`,
		"root:":   `{"name":"/jobs","settings":{"ownerUid":0,"groupGid":0},"updateMask":"ownerUid,groupGid"}`,
		"0:":      `{"name":"/jobs","settings":{"ownerUid":0,"groupGid":0},"updateMask":"ownerUid,groupGid"}`,
		":34":     `{"name":"/jobs","settings":{"groupGid":34},"updateMask":"groupGid"}`,
	} {
		f.ctl(t, "", "chown", owner, "jobs").want(t, 0, "", "/jobs belongs to 4000000001:4000000002\n")
		if got := protoJSON(t, seen[*ipcdv1.UpdateQueueRequest](t, f)); got != want {
			t.Errorf("chown %s sent\n%s\nwant\n%s", owner, got, want)
		}
	}
	for _, owner := range []string{"", ":", "4000000009:", "12:34:56", "no such user", "4294967295", ":4294967295", "4294967296", ":-1"} {
		if r := f.ctl(t, "", "chown", owner, "/jobs"); r.exit != 2 || r.out != "" || strings.Count(r.err, "\n") != 1 {
			t.Errorf("chown %q: exit %d, stderr %q", owner, r.exit, r.err)
		}
	}
}

func TestOwnershipOfTheOtherKindIsHintedAt(t *testing.T) {
	f := ticks(t)
	f.add("/jobs")
	f.ctl(t, "", "chown", "12", "ticks").want(t, 3, "", "ipcctl: /ticks: there is no such queue; there is a ring of this name: ipcctl ring chown, ipcctl ring chmod\n")
	f.ctl(t, "", "chmod", "g=u", "ticks").want(t, 3, "", "ipcctl: /ticks: there is no such queue; there is a ring of this name: ipcctl ring chown, ipcctl ring chmod\n")
	f.ctl(t, "", "ring", "chmod", "0600", "jobs").want(t, 3, "", "ipcctl: /jobs: there is no such ring; there is a queue of this name: ipcctl chown, ipcctl chmod\n")
	f.ctl(t, "", "ring", "chmod", "0600", "none").want(t, 3, "", "ipcctl: /none: there is no such ring\n")
	f.ctl(t, "", "chmod", "-r", "jobs").want(t, 2, "", "ipcctl: a mode that begins with - goes behind --, as in: ipcctl chmod -- -r NAME; or write a-r; see ipcctl chmod --help\n")
}

func TestChmodTakesOctalAndSymbolicModes(t *testing.T) {
	for change, want := range map[string]uint32{ // of 0640
		"0660": 0o660, "7": 0o007, "0o600": 0o600, "000": 0,
		"g+w": 0o660, "u-w": 0o440, "o=r": 0o644, "u+rw,g=r,o-rwx": 0o640, "a=": 0, "=r": 0o444, "+w": 0o662, "a-r": 0o200,
		"g=u": 0o660, "o=g,g=": 0o604, "ug+w,o=u": 0o666, "g-r+w": 0o620, "u=g": 0o440, "o+u-w": 0o644, "ugo=rwx": 0o777, "g+": 0o640,
	} {
		m, err := parseModeChange(change)
		if err != nil {
			t.Errorf("%s: %v", change, err)
		} else if got := m.of(0o640); got != want {
			t.Errorf("%s makes 0640 %#o, want %#o", change, got, want)
		}
	}
	for _, change := range []string{"", "u", "z+r", "u+z", "u+r,", ",u+r", "u+s", "g=X", "u+r g+r", "1000", "0o7777", "8", "rw", "u=gr", "06 0"} {
		if m, err := parseModeChange(change); err == nil {
			t.Errorf("%q is taken for %+v", change, m)
		}
	}
}

func FuzzModeChangesStayPermissionBits(f *testing.F) {
	f.Add("u+rw,g=r,o-rwx", uint32(0o640))
	f.Add("0660", uint32(0))
	f.Fuzz(func(t *testing.T, change string, mode uint32) {
		if m, err := parseModeChange(change); err == nil && m.of(mode&0o777) > 0o777 {
			t.Errorf("%q makes %#o %#o", change, mode, m.of(mode))
		}
	})
}

func TestChmodChangesWhatTheModeWas(t *testing.T) {
	f := jobs(t)
	f.ctl(t, "", "chmod", "g=u,o+r", "jobs").want(t, 0, "", "/jobs has mode 0600\n") // the fake answers so
	if got := protoJSON(t, seen[*ipcdv1.UpdateQueueRequest](t, f)); got != `{"name":"/jobs","settings":{"mode":436},"updateMask":"mode"}` {
		t.Errorf("sent %s", got)
	}
	f.ctl(t, "", "chmod", "u*", "/jobs").want(t, 2, "", "ipcctl: \"u*\" is no mode: write permission bits in octal, such as 0660, or changes such as \"u+rw,g=r,o-rwx\"\n")
	f.ctl(t, "", "chmod").want(t, 2, "", "ipcctl: give a mode and a queue, as in: ipcctl chmod 0660 /jobs; see ipcctl chmod --help\n")
	f.ctl(t, "", "chown", "12").want(t, 2, "", "ipcctl: name a queue, as in: ipcctl chown alice /jobs; see ipcctl chown --help\n")
}

func TestChownAndChmodGoOnAfterAFailureAndExitWithTheWorst(t *testing.T) {
	f := jobs(t)
	f.failWith["/locked"] = refuse(reason.AccessDenied, "it is not yours")
	f.ctl(t, "", "chown", "12", "/none", "/locked", "/jobs").want(t, 5, "",
		"ipcctl: /none: there is no such queue\nipcctl: /locked: it is not yours\n/jobs belongs to 4000000001:4000000002\n")
	f.ctl(t, "", "chmod", "u+r", "/locked", "/jobs").want(t, 5, "", "ipcctl: /locked: it is not yours\n/jobs has mode 0600\n")
}

func TestRingsChangeOwnersAndModesToo(t *testing.T) {
	f := ticks(t)
	f.ctl(t, "", "ring", "chown", "12:34", "ticks").want(t, 0, "", "/ticks belongs to 4000000001:4000000002\n")
	if got := protoJSON(t, seen[*ipcdv1.UpdateRingRequest](t, f)); got != `{"name":"/ticks","settings":{"ownerUid":12,"groupGid":34},"updateMask":"ownerUid,groupGid"}` {
		t.Errorf("sent %s", got)
	}
	f.ctl(t, "", "ring", "chmod", "o=r", "ticks").want(t, 0, "", "/ticks has mode 0660\n")
	if got := protoJSON(t, seen[*ipcdv1.UpdateRingRequest](t, f)); got != `{"name":"/ticks","settings":{"mode":436},"updateMask":"mode"}` {
		t.Errorf("sent %s", got)
	}
	f.ctl(t, "", "ring", "chmod", "0600", "none").want(t, 3, "", "ipcctl: /none: there is no such ring\n")
	for args, want := range map[string]string{"ring chmod 0600 ": "/ticks\n:4\n", "ring chown ": ":4\n"} {
		if r := f.ctl(t, "", append([]string{"__complete"}, strings.Split(args, " ")...)...); r.out != want {
			t.Errorf("%s completes to %q, want %q", args, r.out, want)
		}
	}
}
