package identity

import (
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestKernelSaysWhoConnected(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	id, err := FromUnixConn(accepted.(*net.UnixConn))
	if err != nil {
		t.Fatal(err)
	}
	groups, err := os.Getgroups()
	if err != nil {
		t.Fatal(err)
	}
	if id.Kind != Unix || id.UID != uint32(os.Geteuid()) || id.GID != uint32(os.Getegid()) || id.PID != int32(os.Getpid()) || len(id.Groups) != len(groups) {
		t.Errorf("%+v; this process has groups %v", id, groups)
	}
	for _, g := range groups {
		if !id.InGroup(uint32(g)) || !slices.Contains(id.Groups, uint32(g)) {
			t.Errorf("not in group %d", g)
		}
	}
}

func TestClosedConnectionHasNoIdentity(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if id, err := FromUnixConn(c.(*net.UnixConn)); err == nil {
		t.Errorf("%+v", id)
	}
}

func TestAnonymousIsNobody(t *testing.T) {
	var nobody Identity // uid 0, and yet not root
	if nobody.IsRoot() || nobody.InGroup(0) || nobody.String() != "anonymous" {
		t.Errorf("%v: root %v, in group 0 %v", nobody, nobody.IsRoot(), nobody.InGroup(0))
	}
	if root := (Identity{Kind: Unix}); !root.IsRoot() || root.String() != "uid 0" {
		t.Errorf("%v", root)
	}
}
