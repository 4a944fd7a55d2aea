//go:build linux

package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/ipcd/ipcd/client"
)

// cpuTicks returns how much time of a CPU a process has used, in ticks of a hundredth of a second.
func cpuTicks(t *testing.T, pid int) int {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')'):]))
	user, userErr := strconv.Atoi(fields[12]) // utime and stime of proc_pid_stat(5)
	system, systemErr := strconv.Atoi(fields[13])
	if err := errors.Join(userErr, systemErr); err != nil {
		t.Fatal(err)
	}
	return user + system
}

// hold connects to a socket that often, and holds the connections until the end.
func hold(t *testing.T, network, path string, n int) (conns []net.Conn) {
	t.Helper()
	for range n {
		conn, err := net.Dial(network, path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
	}
	return conns
}

func TestDaemonWithoutDescriptorsServesWhomItHas(t *testing.T) {
	t.Parallel()
	m := manage(t)
	config := writeConfig(t, m.dir, "segment_size: 256KiB")
	d := launchWith(t, m.dir, func(cmd *exec.Cmd) {
		through(cmd, "ulimit -n 64")
		cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+m.notify, "WATCHDOG_USEC=1500000")
	}, "--config", config)
	d.started(t)
	c := d.dial(t)
	durable := createNamed(t, c, "/durable", client.QueueSettings{Mqueue: client.KernelQueue{Mode: client.KernelNone}})
	name := unique()
	d.ctl(t, "create", name, "--mqueue", "both", "--mqueue-messages", "4", "--mqueue-size", "64", "--durability", "memory").ok(t)
	t.Cleanup(func() { unlinkKernel(name, name+".out") })
	body := make([]byte, 32<<10)
	send(t, durable, client.Message{Body: body})
	idle := descriptors(t, d.cmd.Process.Pid)

	taken := hold(t, "unix", d.socket, 60)
	eventually(t, "strangers have all that they get", func() bool { return descriptors(t, d.cmd.Process.Pid) >= 64-64/4 })
	taken = append(taken, hold(t, "unixpacket", d.attach, 20)...)

	// Nothing spins: of the time in which the watchdog is fed four times, about two seconds, only a little is computed.
	m.await(t, m.until(), 1, "WATCHDOG=1")
	before := cpuTicks(t, d.cmd.Process.Pid)
	m.await(t, m.until(), 4, "WATCHDOG=1")
	if used := cpuTicks(t, d.cmd.Process.Pid) - before; used > 60 {
		t.Errorf("without descriptors, and with nothing to do, it uses %d hundredths of a second", used)
	}

	// Who is connected is served, and native programs go on.
	for range 3 {
		send(t, durable, client.Message{Body: body})
	}
	native := func(body string) {
		t.Helper()
		r := finish(t, d.command(within(t), "producer", name, "0", body))
		out := finish(t, d.command(within(t), "consumer", name+".out", "1"))
		if r.exit != 0 || out.out != "0 "+body+"\n" {
			t.Errorf("native programs: %s%s%q", r.err, out.err, out.out)
		}
	}
	native("meanwhile")
	m.await(t, m.until(), 2, "WATCHDOG=1")

	// Who waits is served when others go.
	waits, late, ctx := make(chan error, 1), d.dial(t), within(t)
	go func() {
		_, err := late.Info(ctx)
		waits <- err
	}()
	for _, conn := range taken {
		conn.Close()
	}
	if err := <-waits; err != nil {
		t.Errorf("who waited for a descriptor: %v", err)
	}
	d.ctl(t, "info").ok(t)
	d.ctl(t, "ring", "create", "/r", "--capacity", "64KiB").ok(t)
	d.ctl(t, "ring", "pub", "/r", "x").ok(t)
	native("afterwards")
	if got := len(drain(t, durable)); got != 4 {
		t.Errorf("of 4 messages %d are there", got)
	}
	eventually(t, "the descriptors are free again", func() bool { return descriptors(t, d.cmd.Process.Pid) <= idle+16 })
}

func TestJournalTakesNewFilesIntoUseWithoutDescriptors(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	d := launchWith(t, dir, func(cmd *exec.Cmd) { through(cmd, "ulimit -n 64") }, "--config", writeConfig(t, dir, "segment_size: 256KiB"))
	d.started(t)
	q := createNamed(t, d.dial(t), "/durable", client.QueueSettings{Mqueue: client.KernelQueue{Mode: client.KernelNone}})
	idle := descriptors(t, d.cmd.Process.Pid)
	hold(t, "unix", d.socket, 60)
	hold(t, "unixpacket", d.attach, 60)
	eventually(t, "strangers have all that they get", func() bool { return descriptors(t, d.cmd.Process.Pid) > idle+16 })
	for range 60 { // several segments
		send(t, q, client.Message{Body: make([]byte, 32<<10)})
	}
	if got := len(drain(t, q)); got != 60 {
		t.Errorf("of 60 messages %d are there", got)
	}
}
