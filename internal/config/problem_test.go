package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func TestProblemsAreInTheOrderOfFilesAndLines(t *testing.T) {
	path := write(t, "listen: nowhere\nqueues:\n  /b: {dead_letter: /c}\n  /c: {dead_letter: /b}\nlogs: x\n",
		"b.yaml", "http: nowhere\nlogs: x\n", "a.yaml", "tls: {cert: /nowhere/c}\nlogs: x\n")
	c, err := load(Default(0, env()), path, people{}, false)
	c.StopTimeout = -1 // as the command line may say
	err = Join(err, c.Check())
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	var got []string
	for _, p := range e.Problems {
		got = append(got, fmt.Sprintf("%s:%d", filepath.Base(p.File), p.Line))
	}
	// Of TLS the certificate can not be read, and two files are missing.
	want := "ipcd.yaml:1 ipcd.yaml:3 ipcd.yaml:4 ipcd.yaml:5 a.yaml:1 a.yaml:1 a.yaml:1 a.yaml:2 b.yaml:1 b.yaml:2 .:0"
	if strings.Join(got, " ") != want {
		t.Errorf("%s, want %s:\n%v", strings.Join(got, " "), want, err)
	}
}

func TestPathsOfAFileAreHeldAgainstWhatSocketsAllow(t *testing.T) {
	long := "/" + strings.Repeat("x", socketPathMax)
	for text, say := range map[string]string{
		"socket: ~/s":                       ":1: socket: \"~/s\": the path must be absolute",
		"\nattach_socket: a":                ":2: attach_socket: \"a\": the path must be absolute",
		"state_dir: ./d":                    ":1: state_dir: \"./d\": the path must be absolute",
		"socket: ''":                        ":1: socket: it is empty",
		"state_dir: ''":                     ":1: state_dir: it is empty",
		"socket: " + long:                   "has 108 bytes: the path of a socket may have 107",
		"http: unix:" + long:                "has 108 bytes: the path of a socket may have 107",
		"socket: /run/s\nhttp: unix:/run/s": ":2: http: \"unix:/run/s\" is the path of socket or attach_socket too",
		"http: unix:/run/ipcd/attach.sock":  ":1: http: ",
	} {
		c := loaded(t, text)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), say) {
			t.Errorf("%q: said %v, want %q", text, err, say)
		}
	}
	for _, text := range []string{"socket: " + long[:socketPathMax], "socket: /run/../s", "state_dir: " + long + long} {
		c := loaded(t, text)
		if err := c.Check(); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestMistakesBelowABadNameAreReportedToo(t *testing.T) {
	for text, say := range map[string][]string{
		"queues:\n  jobs: {leese: 1s}\n":                              {":2: queues.jobs: ", ":2: queues.jobs.leese: ", "did you mean lease?"},
		"queues:\n  jobs:\n    mode: 9\n    type_names: {a: 1, b: 1}": {":2: queues.jobs: ", ":3: queues.jobs.mode: ", ":4: queues.jobs.type_names.b: "},
		"queues:\n  jobs: {dead_letter_expired: true}":                {":2: queues.jobs: ", ":2: queues.jobs.dead_letter_expired: "},
		"rings:\n  /a/b:\n    lease: 1s\n":                            {":2: rings./a/b: ", ":3: rings./a/b.lease: "},
		"quotas:\n  users:\n    ghost: {quues: 1}":                    {":3: quotas.users.ghost: ", ":3: quotas.users.ghost.quues: "},
		"quotas:\n  certificates:\n    '': {queues: x}":               {":3: quotas.certificates.\"\": ", ":3: quotas.certificates.\"\".queues: "},
	} {
		expectProblem(t, text, say)
	}
}
