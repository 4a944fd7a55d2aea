package doors

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"go.uber.org/zap"

	"github.com/ipcd/ipcd/broker/queue"
	"github.com/ipcd/ipcd/transport/posixmq"
)

const (
	victimState = "IPCD_TEST_VICTIM_STATE" // set: this process is the victim, with that state directory
	victimName  = "IPCD_TEST_VICTIM_NAME"
	victims     = 4 // kernel queues it opens and closes
)

// TestVictim is the daemon that TestKillLeavesNothingUnaccountedFor_S28 kills: it opens and closes doors
// until then.
func TestVictim(t *testing.T) {
	stateDir, name := os.Getenv(victimState), os.Getenv(victimName)
	if stateDir == "" {
		t.Skip("only as a child of TestKillLeavesNothingUnaccountedFor_S28")
	}
	d, err := New(stateDir, zap.NewNop(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ {
		door, err := d.Open(spec(fmt.Sprint(name, "-", i%victims), queue.KernelIn, roomy()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("opened")
		if rand.IntN(2) == 0 {
			door.Close(true)
		} else {
			door.Close(false)
		}
	}
}

// A daemon that opens and closes doors is killed at random moments. The next one unlinks all that it left.
func TestKillLeavesNothingUnaccountedFor_S28(t *testing.T) {
	for range 8 {
		stateDir, name := t.TempDir(), newName()
		c := exec.Command(os.Args[0], "-test.run=^TestVictim$")
		c.Env = append(os.Environ(), victimState+"="+stateDir, victimName+"="+name)
		out, err := c.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range 1 + rand.IntN(40) {
			if !lines.Scan() || !strings.Contains(lines.Text(), "opened") {
				t.Fatalf("the victim says %q", lines.Text())
			}
		}
		for range rand.IntN(100_000) { // somewhere in the next turn
			rand.Uint64()
		}
		c.Process.Kill()
		c.Wait()
		d, err := New(stateDir, zap.NewNop(), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range victims {
			checkAccountedFor(t, fmt.Sprint(name, "-", i))
		}
		d.Close()
	}
}

// checkAccountedFor fails if the name still stands, unless the victim died in the one moment of which
// the package comment says that nobody can tell: after mq_open, before the mark.
func checkAccountedFor(t *testing.T, name string) {
	t.Helper()
	m, err := posixmq.Open(name)
	if err != nil {
		return
	}
	defer m.Close()
	st, err := m.Stat()
	if err != nil || st.Mark >= 1<<60 {
		t.Errorf("%s is left: %+v, %v", name, st, err)
	} else {
		t.Logf("%s was made by a daemon that died between two system calls", name)
	}
	m.Unlink()
}
