//go:build linux

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ipcd/ipcd/client"
)

// reloaded is what ipcctl reload -o json shows.
type reloaded struct {
	Applied     []string `json:"applied"`
	NeedRestart []string `json:"need_restart"`
	Refused     []string `json:"refused"`
}

// startConfigured runs a daemon with a configuration, in a directory of its own.
func startConfigured(t *testing.T, lines ...string) (d *daemon, dir string) {
	t.Helper()
	dir = shortDir(t)
	return startIn(t, dir, "--config", writeConfig(t, dir, lines...)), dir
}

// reloads are the ways to have the configuration read again.
var reloads = map[string]func(t *testing.T, d *daemon) reloaded{
	"ipcctl reload": func(t *testing.T, d *daemon) (r reloaded) {
		unmarshal(t, d.ctl(t, "reload", "-o", "json").out, &r)
		return r
	},
	"SIGHUP": func(t *testing.T, d *daemon) (r reloaded) {
		before := len(d.log.String())
		d.signal(syscall.SIGHUP)
		eventually(t, "the log says what came of the reload", func() bool {
			for line := range strings.Lines(d.log.String()[before:]) {
				if strings.Contains(line, `"the configuration was reloaded"`) && strings.HasSuffix(line, "\n") {
					unmarshal(t, line, &r)
					return true
				}
			}
			return false
		})
		return r
	},
}

// overEachReload runs a test with each way to reload.
func overEachReload(t *testing.T, test func(t *testing.T, reload func(t *testing.T, d *daemon) reloaded)) {
	t.Parallel()
	needsRoot(t)
	for name, reload := range reloads {
		t.Run(name, func(t *testing.T) { test(t, reload) })
	}
}

func rule(uid uint32, names, rights string) string {
	return fmt.Sprintf("- {queues: [%s], rings: [%s], users: [%d], allow: [%s]}", names, names, uid, rights)
}

func TestDeclaredQueuesAndRingsExistAtStart(t *testing.T) {
	t.Parallel()
	d, dir := startConfigured(t,
		"queues:", "  /declared: {max_messages: 5, lease: 7s, dead_letter: /dead, mode: 0640, mqueue: {mode: none}}", "  /dead: {mqueue: {mode: none}}",
		"rings:", "  /feed: {capacity: 64KiB, policy: lossless, mode: 0666}")
	c := d.dial(t)
	if s := info(t, c.Queue("/declared")).Settings; s.MaxMessages != 5 || s.Lease != 7*time.Second || s.DeadLetterQueue != "/dead" || *s.Mode != 0o640 {
		t.Errorf("/declared has %+v", s)
	}
	if r, err := c.GetRing(within(t), "/feed"); err != nil || r.Settings.CapacityBytes != 64<<10 || *r.Settings.Mode != 0o666 {
		t.Errorf("/feed is %+v, %v", r, err)
	}
	send(t, c.Queue("/declared"), text("kept")...)

	// What is there keeps what is in it, and what was changed by hand is as declared again.
	d.ctl(t, "update", "/declared", "--max-messages", "9", "--max-attempts", "3").ok(t)
	d.kill()
	d = startIn(t, dir, "--config", filepath.Join(dir, "ipcd.yaml"))
	i := info(t, d.dial(t).Queue("/declared"))
	if i.Settings.MaxMessages != 5 || i.Settings.MaxAttempts != 3 || i.Stats.Ready != 1 {
		t.Errorf("after the restart /declared has %+v, %+v", i.Settings, i.Stats)
	}
}

func TestReloadMakesChangesAndRefusesDeclarations(t *testing.T) {
	overEachReload(t, func(t *testing.T, reload func(t *testing.T, d *daemon) reloaded) {
		d, dir := startConfigured(t, "queues:", "  /stays: {mqueue: {mode: none}}", "  /grows: {max_messages: 5, mqueue: {mode: none}}", "  /journal: {mqueue: {mode: none}}",
			"rings:", "  /ring: {capacity: 64KiB}")
		c := d.dial(t)
		send(t, c.Queue("/stays"), text("kept")...)
		writeConfig(t, dir, "segment_size: 1MiB", "socket: /elsewhere", "stop_timeout: 3s",
			"queues:", "  /grows: {max_messages: 6, mqueue: {mode: none}}", "  /new: {mqueue: {mode: none}}", "  /journal: {durability: memory}",
			"rings:", "  /ring: {capacity: 128KiB}", "  /other: {capacity: 64KiB}")
		r := reload(t, d)
		for _, want := range []string{"stop_timeout", "/grows", "/new", "/other"} {
			if !slices.ContainsFunc(r.Applied, func(s string) bool { return strings.Contains(s, want) }) {
				t.Errorf("%s is not among what was applied: %q", want, r.Applied)
			}
		}
		if !slices.Contains(r.NeedRestart, "segment_size") || slices.Contains(r.NeedRestart, "stop_timeout") {
			t.Errorf("what needs a restart: %q", r.NeedRestart)
		}
		for _, want := range []string{"/journal", "/ring"} {
			if i := slices.IndexFunc(r.Refused, func(s string) bool { return strings.Contains(s, want) }); i < 0 || len(r.Refused[i]) < 20 {
				t.Errorf("%s is not refused with a reason: %q", want, r.Refused)
			}
		}
		if i := info(t, c.Queue("/stays")); i.Stats.Ready != 1 {
			t.Errorf("a queue that is not declared any more: %+v", i.Stats)
		}
		if i := info(t, c.Queue("/grows")); i.Settings.MaxMessages != 6 {
			t.Errorf("/grows holds %d messages", i.Settings.MaxMessages)
		}
		if i := info(t, c.Queue("/journal")); i.Settings.Durability != client.DurabilityJournal {
			t.Errorf("/journal is %v", i.Settings.Durability)
		}
		for _, name := range []string{"/ring", "/other"} {
			if i, err := c.GetRing(within(t), name); err != nil || i.Settings.CapacityBytes != 64<<10 {
				t.Errorf("%s: %+v, %v", name, i.Settings, err)
			}
		}
		d.ctl(t, "reload").exits(t, 1).says(t, "refused", "/journal", "/ring", "needs a restart: segment_size") // as long as it is so
	})
}

func TestReloadedRulesCountAtOnce(t *testing.T) {
	overEachReload(t, func(t *testing.T, reload func(t *testing.T, d *daemon) reloaded) {
		d, dir := startConfigured(t, "rules:", rule(stranger.uid, "shared", "receive"))
		root := d.dial(t)
		q := createNamed(t, root, "/shared", memory())
		if _, err := root.CreateRing(within(t), "/shared", client.RingSettings{CapacityBytes: 64 << 10}); err != nil {
			t.Fatal(err)
		}
		loses, gains := d.dialAs(t, stranger), d.dialAs(t, other)
		ended := make(chan error, 2)
		go func() {
			ended <- loses.Queue(q.Name()).Consume(within(t), func(context.Context, *client.Delivery) error { return nil }, client.ConsumeOptions{})
		}()
		go func() {
			for _, err := range loses.Ring("/shared").Subscribe(within(t), client.RingSubscribeOptions{}) {
				ended <- err
				return
			}
		}()
		awaitStats(t, q, "the stranger consumes", func(s client.QueueStats) bool { return s.Receivers == 1 })
		awaitRing(t, root.Ring("/shared"), "the stranger subscribes", func(i client.RingInfo) bool { return len(i.Consumers) == 1 })
		_, err := gains.Queue(q.Name()).Receive(within(t), 1, client.ReceiveOptions{AtOnce: true})
		allowed(t, "receiving before the reload", err, false)

		writeConfig(t, dir, "rules:", rule(other.uid, "shared", "receive"))
		if r := reload(t, d); !slices.Equal(r.Applied, []string{"rules"}) {
			t.Errorf("applied is %q", r.Applied)
		}
		for range 2 {
			select {
			case err := <-ended:
				allowed(t, "a stream of who may not any more", err, false)
			case <-time.After(patience):
				t.Fatal("who may not any more goes on")
			}
		}
		awaitStats(t, q, "nobody consumes", func(s client.QueueStats) bool { return s.Receivers == 0 })
		send(t, q, text("m")...)
		if m := receiveOne(t, gains.Queue(q.Name())); string(m.Body) != "m" {
			t.Errorf("received %q", m.Body)
		}
	})
}

func TestReloadedLogLevelCounts(t *testing.T) {
	overEachReload(t, func(t *testing.T, reload func(t *testing.T, d *daemon) reloaded) {
		d, dir := startConfigured(t)
		for _, name := range []string{"/silent", "/told"} {
			createNamed(t, d.dial(t), name, memory())
		}
		stranger := d.dialAs(t, stranger)
		deny := func(queue string) {
			_, err := stranger.Queue(queue).Info(within(t))
			allowed(t, queue, err, false)
		}
		writeConfig(t, dir, "log_level: warn")
		d.ctl(t, "reload").ok(t)
		deny("/silent")
		writeConfig(t, dir, "log_level: info")
		d.ctl(t, "reload").ok(t)
		deny("/told")
		denials := func(queue string) bool {
			return slices.ContainsFunc(strings.Split(d.log.String(), "\n"), func(line string) bool {
				return strings.Contains(line, "access denied") && strings.Contains(line, queue)
			})
		}
		eventually(t, "at level info a denial is logged", func() bool { return denials("/told") })
		if denials("/silent") {
			t.Error("at level warn a denial is logged")
		}
		reload(t, d)
	})
}

func TestMistakeInTheConfigurationChangesNothing(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d, dir := startConfigured(t, "rules:", rule(stranger.uid, "shared", "look"))
	q := createNamed(t, d.dial(t), "/shared", memory())
	good := []string{"rules:", rule(other.uid, "shared", "look"), "quotas: {default: {queues: 1}}", "queues:", "  /made: {mqueue: {mode: none}}"}
	for name, mistake := range map[string]struct{ line, file, key string }{
		"unknown key":    {"sokket: /x", "ipcd.yaml:6", "sokket"},
		"value":          {"stop_timeout: soon", "ipcd.yaml:6", "stop_timeout"},
		"in another":     {"", "conf.d/extra.yaml:2", "log_level"},
		"no YAML":        {"queues: [", "ipcd.yaml", ""},
		"unknown user":   {"admin_group: no-such-group-here", "ipcd.yaml:6", "admin_group"},
		"bad settings":   {"  /worse: {lease: 1ns}", "ipcd.yaml:6", "queues./worse.lease"},
		"twice declared": {"  /made: {}", "ipcd.yaml:6", "queues./made"},
	} {
		t.Run(name, func(t *testing.T) {
			writeConfig(t, dir, append(slices.Clone(good), mistake.line)...)
			extra := "# nothing\n"
			if mistake.line == "" {
				extra += "log_level: loud\n"
			}
			writeFile(t, filepath.Join(dir, "conf.d", "extra.yaml"), extra)
			d.ctl(t, "reload").exits(t, 1).says(t, mistake.file, mistake.key, "nothing has changed")
			d.ctl(t, "check").ok(t)

			before := len(d.log.String())
			d.signal(syscall.SIGHUP)
			eventually(t, "the log says what is wrong", func() bool {
				said := d.log.String()[before:]
				return strings.Contains(said, "the one before stays in force") && strings.Contains(said, mistake.file) && strings.Contains(said, mistake.key)
			})
			if _, err := d.dial(t).Queue("/made").Info(within(t)); !errors.Is(err, client.ErrQueueNotFound) {
				t.Errorf("a declaration beside the mistake: %v", err)
			}
			_, err := d.dialAs(t, stranger).Queue(q.Name()).Info(within(t))
			allowed(t, "the rule from before", err, true)
			_, err = d.dialAs(t, other).Queue(q.Name()).Info(within(t))
			allowed(t, "the rule beside the mistake", err, false)
		})
	}
}

func TestOnlyAdminsReload(t *testing.T) {
	t.Parallel()
	needsRoot(t)
	d, dir := startConfigured(t)
	d.as(t, nil, "ipcctl", "reload").exits(t, 5).says(t, fmt.Sprintf("uid %d", strangerUID), "may not reload")
	d.as(t, []uint32{sharedGID}, "ipcctl", "reload").exits(t, 5)
	writeConfig(t, dir, fmt.Sprintf("admin_group: %d", sharedGID))
	d.ctl(t, "reload").ok(t)
	d.as(t, nil, "ipcctl", "reload").exits(t, 5)
	d.as(t, []uint32{sharedGID}, "ipcctl", "reload").ok(t)

	// Who is an admin by the group may do everything.
	createNamed(t, d.dial(t), "/private", memory())
	for _, arguments := range []string{"stat /private", "chmod 0600 /private", "chown 0:0 /private", "quota set " + fmt.Sprint(other.uid) + " --queues 7", "metrics", "clients", "rm --force /private"} {
		d.as(t, []uint32{sharedGID}, "ipcctl", strings.Fields(arguments)...).ok(t)
	}
	d.as(t, nil, "ipcctl", "metrics").exits(t, 5)
	d.as(t, nil, "ipcctl", "quota", "set", fmt.Sprint(strangerUID), "--queues", "unlimited").exits(t, 5)
}

func TestReloadWithoutAFileSaysSo(t *testing.T) {
	t.Parallel()
	d := launchWith(t, shortDir(t), func(cmd *exec.Cmd) {
		i := slices.Index(cmd.Args, "--config")
		cmd.Args = slices.Delete(cmd.Args, i, i+2)
	})
	d.started(t)
	d.ctl(t, "reload").exits(t, 1).says(t, "--config", "nothing has changed")
}

func TestFlagsWinOverAReloadedFile(t *testing.T) {
	t.Parallel()
	dir := shortDir(t)
	d := startIn(t, dir, "--config", writeConfig(t, dir, "ring_memory: 1GiB"), "--log-level", "debug", "--max-disk", "1GiB")
	writeConfig(t, dir, "log_level: error", "max_disk: 2GiB", "ring_memory: 2GiB")
	var r reloaded
	unmarshal(t, d.ctl(t, "reload", "-o", "json").ok(t), &r)
	if len(r.Applied) != 0 || !slices.Equal(r.NeedRestart, []string{"ring_memory"}) {
		t.Errorf("a reload of what flags say otherwise: %+v", r)
	}
}

func TestQuotasOfTheConfigurationAreReloaded(t *testing.T) {
	overEachReload(t, func(t *testing.T, reload func(t *testing.T, d *daemon) reloaded) {
		d, dir := startConfigured(t, "quotas: {default: {queues: 1}}")
		c := d.dialAs(t, stranger)
		createNamed(t, c, "/first", memory())
		_, err := c.CreateQueue(within(t), "/second", memory())
		exceeded(t, "a second queue", err)
		writeConfig(t, dir, "quotas:", "  default: {queues: 1}", fmt.Sprintf("  users: {%d: {queues: 2}}", stranger.uid))
		if r := reload(t, d); !slices.Equal(r.Applied, []string{"quotas"}) {
			t.Errorf("applied is %q", r.Applied)
		}
		createNamed(t, c, "/second", memory())
		_, err = c.CreateQueue(within(t), "/third", memory())
		exceeded(t, "a third queue", err)
		createNamed(t, d.dialAs(t, other), "/others", memory())
	})
}
