package shmring

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/internal/attach"
)

// helperMain is another process: this test's program, started with SHMRING_TEST_HELPER. It attaches and
// says so, with the pid of its child, which it has if it is to fork, and then waits to be killed.
func helperMain(what string) {
	what, path, _ := strings.Cut(what, ":")
	if what == "child" {
		io.Copy(io.Discard, os.Stdin) // until the test ends
		return
	}
	fail := func(err error) {
		if err != nil {
			fmt.Println("helper:", err)
			os.Exit(1)
		}
	}
	sock, err := net.DialUnix(attach.Network, nil, &net.UnixAddr{Name: path, Net: attach.Network})
	fail(err)
	step := func(p attach.Request) {
		fail(attach.Send(sock, p))
		reply, files, err := attach.ReceiveReply(sock)
		fail(err)
		if len(files) == 0 {
			fail(fmt.Errorf("%+v", reply))
		}
		fail(attach.Send(sock, attach.Got{}))
	}
	step(attach.Attach{Role: attach.Producer, Name: "/ring"})
	step(attach.Ready{})
	if what == "forks" {
		f, err := sock.File()
		fail(err)
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), "SHMRING_TEST_HELPER=child")
		child.Stdin, child.ExtraFiles = os.Stdin, []*os.File{f}
		fail(child.Start())
	}
	fmt.Println("attached")
	io.Copy(io.Discard, os.Stdin)
}

// process starts a helper and waits until it has attached. What it started ends with the test.
func process(t *testing.T, what, path string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "SHMRING_TEST_HELPER="+what+":"+path)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdin.Close() })
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stdout.Close() })
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if line != "attached\n" {
		t.Fatalf("the helper says %q, %v", line, err)
	}
	return cmd
}

func TestAKilledProcessIsNoMemberAnyMore(t *testing.T) {
	s, rings, path := start(t, nil)
	cmd := process(t, "attaches", path)
	cmd.Process.Kill()
	rings.awaitLeft(1)
	cmd.Wait()
	settle(t, s)
}

// The child holds the connection open: no hang-up ever comes.
func TestAProcessThatForkedAndDiedIsNoMemberAnyMore(t *testing.T) {
	s, rings, path := start(t, nil)
	cmd := process(t, "forks", path)
	cmd.Process.Kill()
	if why := rings.awaitLeft(1); why != errDead.Error() {
		t.Errorf("left: %s", why)
	}
	cmd.Process.Wait()
	settle(t, s)
}

// Kernels before 6.5 have no SO_PEERPIDFD.
func TestPeersAreWatchedByPidWhereTheKernelKnowsNoBetter(t *testing.T) {
	sleeper := exec.Command(os.Args[0])
	sleeper.Env = append(os.Environ(), "SHMRING_TEST_HELPER=child:")
	stdin, err := sleeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sleeper.Start(); err != nil {
		t.Fatal(err)
	}
	pidfd, err := openPID(int32(sleeper.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	defer pidfd.Close()
	stdin.Close()
	if err := awaitExit(pidfd); err != errDead {
		t.Error(err)
	}
	sleeper.Wait()
	if _, err := openPID(int32(sleeper.Process.Pid)); err != errDead {
		t.Errorf("of a process that was waited for: %v", err)
	}
	// In a pid namespace that this process cannot see into.
	if pidfd, err := openPID(0); pidfd != nil || err != nil {
		t.Errorf("without a pid: %v, %v", pidfd, err)
	}
}
