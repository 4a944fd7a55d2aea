//go:build linux

package rules

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// command is one line that README tells the reader to type, and what it says comes out.
type command struct {
	text, output string
}

// codeBlocks returns the fenced blocks of a document in a language, in their order.
func codeBlocks(document, language string) []string {
	var blocks []string
	var block []string
	inside := false
	for line := range strings.Lines(document) {
		switch {
		case !inside && strings.TrimSpace(line) == "```"+language:
			inside, block = true, nil
		case inside && strings.TrimSpace(line) == "```":
			inside = false
			blocks = append(blocks, strings.Join(block, ""))
		case inside:
			block = append(block, line)
		}
	}
	return blocks
}

// commands splits a console block: lines after a "$ " are its output.
func commands(block string) []command {
	var all []command
	for line := range strings.Lines(block) {
		if text, ok := strings.CutPrefix(line, "$ "); ok {
			all = append(all, command{text: strings.TrimSpace(text)})
		} else if len(all) > 0 {
			all[len(all)-1].output += line
		}
	}
	return all
}

// varying is what differs from run to run: each kind is written as one word before comparing.
var varying = []struct {
	pattern *regexp.Regexp
	word    string
}{
	{regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\.[0-9a-z]+\b`), "RECEIPT"},
	{regexp.MustCompile(`\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:?\d{2})?`), "TIME"},
	{regexp.MustCompile(`\b\d{2}:\d{2}:\d{2}(\.\d+)?\b`), "TIME"},
	{regexp.MustCompile(`\b\d+(\.\d+)?(ns|µs|ms|s|m|h|d)(\d+(\.\d+)?(ms|s|m))*\b`), "SPAN"},
	{regexp.MustCompile(`\b\d+(\.\d+)?/s\b`), "RATE"},
	{regexp.MustCompile(` +`), " "}, // the width of a column follows what is in it
}

func normalise(output string) string {
	for _, v := range varying {
		output = v.pattern.ReplaceAllString(output, v.word)
	}
	lines := strings.Split(output, "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.TrimSpace(strings.Join(lines, "\n"))
}

func TestVaryingOutputIsNormalised(t *testing.T) {
	a := "NAME   READY  OLDEST\n/a         2  1.2s\nreceipt 1.1.42.1.k3x9z1 until 2026-01-02T03:04:05.678Z\n"
	b := "NAME READY OLDEST\n/a 2 130ms\nreceipt 7.1.2.1.zzzz until 2027-11-12T13:14:15Z\n"
	if normalise(a) != normalise(b) {
		t.Errorf("%q and %q differ", normalise(a), normalise(b))
	}
	if c := strings.Replace(b, " 2 ", " 3 ", 1); normalise(b) == normalise(c) {
		t.Error("a count was taken for something that varies")
	}
}

// buildBinaries puts ipcd and ipcctl into dir.
func buildBinaries(t *testing.T, dir string) {
	t.Helper()
	build := exec.Command("go", "build", "-o", dir+"/", "./cmd/ipcd", "./cmd/ipcctl")
	build.Dir = root
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, output)
	}
}

// cleanEnvironment is this process's without what would change ipcd's and ipcctl's ways.
func cleanEnvironment(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "IPCD_") })
	return append(env, more...)
}

// tryDir is where README's transcript keeps its files; the test keeps them elsewhere.
const tryDir = "/tmp/ipcd-try"

// TestTranscripts types what the documents say, each in one shell, against a real daemon, and compares.
func TestTranscripts(t *testing.T) {
	for _, document := range []string{"README.md", "docs/queues.md"} {
		t.Run(document, func(t *testing.T) { typeTranscript(t, document) })
	}
}

func typeTranscript(t *testing.T, document string) {
	var all []command
	for _, block := range codeBlocks(string(read(t, document)), "console") {
		all = append(all, commands(block)...)
	}
	if len(all) < 5 {
		t.Fatalf("%s has a transcript of %d commands", document, len(all))
	}

	dir, err := os.MkdirTemp("", "ipcd-try") // short: the path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	buildBinaries(t, filepath.Join(dir, "bin"))

	const mark = "\x1e"
	var script strings.Builder
	// Whatever the transcript started ends with the shell.
	script.WriteString("trap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\nexec 2>&1\n")
	for _, c := range all {
		text := strings.NewReplacer("bin/ipc", dir+"/bin/ipc", tryDir, dir+"/try").Replace(c.text)
		script.WriteString("printf '" + mark + "'\n")
		switch {
		case c.text == "make build": // done above
		case strings.HasSuffix(c.text, "&"):
			// A reader takes longer to type than the daemon to start; a script does not.
			script.WriteString(text + "\nuntil " + dir + "/bin/ipcctl info >/dev/null 2>&1; do kill -0 $! || exit 1; sleep 0.02; done\n")
		default:
			script.WriteString(text + "\n")
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	scriptFile := filepath.Join(dir, "transcript")
	if err := os.WriteFile(scriptFile, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	shell := exec.CommandContext(ctx, "bash", scriptFile)
	shell.Dir = root
	shell.Env = cleanEnvironment("NO_COLOR=1")
	var out bytes.Buffer
	shell.Stdout, shell.Stderr = &out, &out
	shell.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	shell.Cancel = func() error { return syscall.Kill(-shell.Process.Pid, syscall.SIGTERM) }
	shell.WaitDelay = 10 * time.Second
	if err := shell.Run(); err != nil {
		t.Errorf("the shell ended with %v", err)
	}

	outputs := strings.Split(out.String(), mark)[1:]
	if len(outputs) != len(all) {
		t.Fatalf("%d of %d commands ran:\n%s", len(outputs), len(all), strings.ReplaceAll(out.String(), mark, "$ "))
	}
	for i, c := range all {
		got := strings.NewReplacer(dir+"/bin/", "bin/", dir+"/try", tryDir).Replace(outputs[i])
		if normalise(got) != normalise(c.output) {
			t.Errorf("$ %s\nprints\n%s\n%s says\n%s", c.text, got, document, c.output)
		}
	}
}

// TestReadmeShowsFilesAsTheyAre holds the programs that README prints against the files that its
// transcript runs.
func TestReadmeShowsFilesAsTheyAre(t *testing.T) {
	readme := string(read(t, "README.md"))
	for language, file := range map[string]string{"go": "demo/hello/main.go", "c": "demo/hello.c"} {
		if !slices.Contains(codeBlocks(readme, language), string(read(t, file))) {
			t.Errorf("README.md has no block of %s that is %s", language, file)
		}
	}
}
