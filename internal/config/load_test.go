package config

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

// people are the users and groups of tests.
type people struct{}

func (people) user(name string) (account, error) {
	switch name {
	case "alice", "1000":
		return account{uid: 1000, gid: 1000, groups: []uint32{1000, 50}, known: true}, nil
	case "bob":
		return account{uid: 1001, gid: 1001, known: true}, nil
	case "root", "toor", "0":
		return account{known: true}, nil
	case "broken":
		return account{}, errors.New("the user database is broken")
	}
	if uid, err := parseID(name); err == nil {
		return account{uid: uid}, nil
	}
	return account{}, errUnknown
}

func (people) group(name string) (uint32, error) {
	switch name {
	case "staff":
		return 50, nil
	case "adm":
		return 4, nil
	}
	if gid, err := parseID(name); err == nil {
		return gid, nil
	}
	return 0, errUnknown
}

// write makes the configuration ipcd.yaml of a text, with files of conf.d, and returns its path.
func write(t testing.TB, text string, more ...string) string {
	t.Helper()
	dir := t.TempDir()
	files := map[string]string{"ipcd.yaml": text}
	for i := 0; i < len(more); i += 2 {
		files[filepath.Join(dirName, more[i])] = more[i+1]
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "ipcd.yaml")
}

// loadText loads a configuration of a text and files of conf.d.
func loadText(t testing.TB, text string, more ...string) (Config, error) {
	t.Helper()
	return load(Default(0, env()), write(t, text, more...), people{}, false)
}

// loaded is loadText of what has no mistakes.
func loaded(t testing.TB, text string, more ...string) Config {
	t.Helper()
	c, err := loadText(t, text, more...)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return c
}

// plain is the settings of a configuration that are no declarations or grants.
func plain(c Config) map[string]any {
	all := map[string]any{}
	for i := range Keys {
		if k := &Keys[i]; k.Kind != Map {
			all[k.Name] = reflect.ValueOf(k.at(&place{config: &c})).Elem().Interface()
		}
	}
	return all
}

func TestFileChangesWhatItNames(t *testing.T) {
	for text, edit := range map[string]func(*Config){
		"":                  func(*Config) {},
		"# nothing\n":       func(*Config) {},
		"---\n":             func(*Config) {},
		"socket:\n":         func(*Config) {},
		"socket: ~\n":       func(*Config) {},
		"\ufeffsocket: /x":  func(c *Config) { c.Socket = "/x" },
		"socket: /other":    func(c *Config) { c.Socket = "/other" },
		"socket: '/other'":  func(c *Config) { c.Socket = "/other" },
		"{socket: /other}":  func(c *Config) { c.Socket = "/other" },
		"listen: ''":        func(c *Config) { c.Listen = "" },
		"stop_timeout: 0s":  func(c *Config) { c.StopTimeout = 0 },
		"socket: 17\r\n":    func(c *Config) { c.Socket = "17" },
		"insecure: false\n": func(*Config) {},
		"max_memory: 1GiB\npayload_memory: 64M\nmax_disk: 10GB\nkeep_free: 4096\nsegment_size: 1MiB\non_damage: quarantine\n": func(c *Config) {
			c.MaxMemory, c.PayloadMemory, c.MaxDisk, c.KeepFree, c.SegmentSize, c.OnDamage = 1<<30, 64<<20, 10e9, 4096, 1<<20, Quarantine
		},
		"attach_socket: /e\nring_memory: 2GiB\nring_memory_per_uid: 64MiB\nadmin_group: adm\n": func(c *Config) {
			c.AttachSocket, c.RingMemory, c.RingMemoryPerUID, c.Access.AdminGroups = "/e", 2<<30, 64<<20, []uint32{4}
		},
		"socket: /a\nlisten: b:1\nhttp: c:1\ninsecure: true\nstate_dir: /c\nlog_level: debug\nstop_timeout: 1m30s\n": func(c *Config) {
			c.Socket, c.Listen, c.HTTP, c.Insecure, c.StateDir, c.LogLevel, c.StopTimeout = "/a", "b:1", "c:1", true, "/c", "debug", 90*time.Second
		},
	} {
		want := Default(0, env())
		edit(&want)
		if c, err := loadText(t, text); err != nil || !reflect.DeepEqual(plain(c), plain(want)) {
			t.Errorf("%q: %+v, %v", text, plain(c), err)
		}
	}
}

func TestMistakesNameTheLineAndTheKey(t *testing.T) {
	for text, say := range map[string][]string{
		// YAML.
		"socket: \"unclosed\nlisten: x\n":       {"ipcd.yaml:", "no YAML"},
		"socket: /a\n---\nsocket: /b\n":         {":3: ", "second document"},
		"log_level: info\nsocket: \x01\n":       {":2: ", "control character"},
		"log_level: info\nsocket: \xff\n":       {":2: ", "UTF-8"},
		"socket: &a /x\nlisten: *a\n":           {":1: ", "anchors and aliases", "quotes"},
		"\nsocket: *a\n":                        {":2: ", "anchors and aliases"},
		"queues:\n  /a: {<<: {}}\n":             {":2: ", "anchors and aliases"},
		"socket: !!str /x\n":                    {":1: ", "tags"},
		"%YAML 1.2\n---\nsocket: /a\n":          {":1: ", "directives"},
		"? socket\n: /a\n":                      {":1: ", "key: value"},
		"socket: " + strings.Repeat("[", 17):    {":1: ", "16 levels"},
		"socket: [\n":                           {":1: ", "no ]"},
		"- - - - - - - - - - - - - - - - - a\n": {":1: ", "16 levels"},

		// Keys.
		"log_level: info\nsokket: /x\n":                                  {":2: sokket: ", "no such key", "did you mean socket?", "allowed are socket, attach_socket"},
		"socket: /a\nlisten: ''\nsocket: /b\n":                           {":3: socket: ", "line 1 too"},
		"queues: {/a: {leese: 1s}}":                                      {":1: queues./a.leese: ", "did you mean lease?", "max_messages"},
		"queues:\n  /a:\n    mqueue:\n      modus: in\n":                 {":4: queues./a.mqueue.modus: ", "did you mean mode?"},
		"rings:\n  /a:\n    lease: 1s\n":                                 {":3: rings./a.lease: ", "allowed are capacity"},
		"tls:\n  certificate: /x\n":                                      {":2: tls.certificate: ", "cert, key, client_ca, users"},
		"quotas:\n  default:\n    quues: 1\n":                            {":3: quotas.default.quues: ", "did you mean queues?"},
		"quotas:\n  alice: {queues: 1}\n":                                {":2: quotas.alice: ", "default, users, certificates, anonymous"},
		"rules:\n  - queues: [/a]\n    user: [alice]\n    allow: [look]": {":3: rules[1].user: ", "did you mean users?"},
		"\"so\\u0007\": 1\n":                                             {":1: \"so\\a\": ", "no such key"},
		"- socket\n":                                                     {":1: ", "keys with values"},
		"socket\n":                                                       {":1: ", "keys with values"},
		"queues: 7\n":                                                    {":1: queues: ", "keys with values"},
		"queues: [/jobs]\n":                                              {":1: queues: ", "keys with values"},
		"tls: on\n":                                                      {":1: tls: ", "keys with values"},
		"[a]: b\n":                                                       {":1: "},

		// Values.
		"insecure: perhaps\n":                  {":1: insecure: ", "true or false"},
		"insecure: yes\n":                      {":1: insecure: ", "true or false"},
		"\nstop_timeout: 10\n":                 {":2: stop_timeout: ", "10", "such as 10s"},
		"stop_timeout: soon\n":                 {":1: stop_timeout: ", "soon", "such as 10s"},
		"stop_timeout: 2h\n":                   {":1: stop_timeout: ", "2h: it must be 0s to 1h"},
		"max_disk: plenty\n":                   {":1: max_disk: ", "plenty", "no size", "64KiB"},
		"max_disk: 1KiB\n":                     {":1: max_disk: ", "it must be 0, or at least 1536KiB"},
		"max_memory: -1\n":                     {":1: max_memory: ", "no size"},
		"log_level: loud\n":                    {":1: log_level: ", "debug, info, warn or error"},
		"on_damage: quarantene\n":              {":1: on_damage: ", "did you mean quarantine?"},
		"socket: [a, b]\n":                     {":1: socket: ", "one value", "path"},
		"socket: {a: b}\n":                     {":1: socket: ", "one value"},
		"admin_group: ghosts\n":                {":1: admin_group: ", "\"ghosts\"", "none of this name"},
		"admin_group: 4294967295\n":            {":1: admin_group: "},
		"tls: {users: {}, cert: [a]}\n":        {":1: tls.cert: ", "one value"},
		"tls:\n  users:\n    spiffe://a: root": {":3: tls.users.spiffe://a: ", "not act as root"},
		"tls: {users: {a: '0'}}":               {"tls.users.a: ", "not act as root"},
		"tls: {users: {a: toor}}":              {"tls.users.a: ", "not act as root"},
		"tls: {users: {a: ghost}}":             {"tls.users.a: ", "ghost"},
		"tls: {users: {a: 4711}}":              {"tls.users.a: ", "4711", "user database"},
		"tls: {users: {a: }}":                  {"tls.users.a: ", "no value"},
		"tls: {users: {'': alice}}":            {"tls.users.\"\": ", "1 to 1024 bytes"},
		"tls: {users: {a: alice, a: bob}}":     {"tls.users.a: ", "line 1 too"},
	} {
		expectProblem(t, text, say)
	}
}

// expectProblem loads a text that has a mistake. say is what must be said of it.
func expectProblem(t *testing.T, text string, say []string) {
	t.Helper()
	c, err := loadText(t, text)
	var e *Error
	if !errors.As(err, &e) {
		t.Errorf("%.200q was taken: %+v, %v", text, c, err)
		return
	}
	for _, s := range say {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%.200q: said %.800q, want %q in it", text, err, s)
		}
	}
}

func TestAllProblemsAreReported(t *testing.T) {
	_, err := loadText(t, "sokket: 1\nlog_level: 2\nqueues:\n  jobs:\n  /a: {lease: 3}\nrules:\n  - {}\n", "a.yaml", "b: 1\n", "c.yaml", "'", "d.yaml", "d: 1\n")
	var e *Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	var where []string
	for _, p := range e.Problems {
		where = append(where, fmt.Sprintf("%s:%d", filepath.Base(p.File), p.Line))
	}
	if got := strings.Join(where, " "); got != "ipcd.yaml:1 ipcd.yaml:2 ipcd.yaml:4 ipcd.yaml:5 ipcd.yaml:7 ipcd.yaml:7 ipcd.yaml:7 a.yaml:1 c.yaml:1 d.yaml:1" {
		t.Errorf("problems at %s:\n%v", got, err)
	}
}

func TestManyProblemsDoNotFillTheScreen(t *testing.T) {
	var text strings.Builder
	for i := range 3 * problemsMax {
		fmt.Fprintf(&text, "x%d: 1\n", i)
	}
	_, err := loadText(t, text.String()) // more than entriesMax would be refused at once
	var e *Error
	if !errors.As(err, &e) || len(e.Problems) != problemsMax+1 {
		t.Fatalf("%d problems", len(e.Problems))
	}
	if lines := strings.Count(err.Error(), "\n") + 1; lines != problemsShown+1 || !strings.Contains(err.Error(), "problems more") {
		t.Errorf("%d lines", lines)
	}
}

func TestFilesOfConfDAreReadInOrder(t *testing.T) {
	c := loaded(t, "log_level: debug\nstop_timeout: 1s\nrules: [{queues: [a], users: [alice], allow: [look]}]\nqueues: {/b: }\nquotas: {default: {queues: 1, rings: 1}}",
		"20.yaml", "stop_timeout: 3s\nrules: [{queues: [c], users: [alice], allow: [look]}]\nquotas: {default: {queues: 3}, users: {bob: {queues: 1}}}\n",
		"10.yaml", "stop_timeout: 2s\nrules: [{queues: [b], users: [alice], allow: [look]}]\nqueues: {/a: }\nquotas: {users: {alice: {queues: 1}}}",
		".hidden.yaml", "x: 1", "old.yaml~", "x: 1", "README", "x: 1")
	if c.LogLevel != "debug" || c.StopTimeout != 3*time.Second {
		t.Errorf("%v, %v", c.LogLevel, c.StopTimeout)
	}
	var order string
	for _, r := range c.Access.Rules {
		order += r.Queues[0]
	}
	if order != "abc" || len(c.Queues) != 2 || c.Queues[0].Name != "/a" || c.Queues[1].Name != "/b" {
		t.Errorf("rules %s, queues %+v", order, c.Queues)
	}
	if len(c.Files) != 3 || filepath.Base(c.Files[1]) != "10.yaml" || len(c.Quotas.Of) != 2 || c.Quotas.Default[0] != 3 || c.Quotas.Default[1] != 1 {
		t.Errorf("files %v, quotas %+v", c.Files, c.Quotas)
	}
}

func TestWhatStandsInTwoFilesNamesBoth(t *testing.T) {
	for text, key := range map[string]string{
		"queues: {/a: }":                            "queues./a",
		"rings: {/a: {capacity: 1MiB}}":             "rings./a",
		"tls: {users: {spiffe://a: alice}}":         "tls.users.spiffe://a",
		"quotas: {users: {alice: {queues: 1}}}":     "quotas.users.alice",
		"quotas: {certificates: {a: {queues: 1}}}":  "quotas.certificates.a",
		"quotas:\n  anonymous:\n    connections: 7": "quotas.anonymous",
	} {
		_, err := loadText(t, "log_level: info\n"+text, "a.yaml", text)
		if err == nil || !strings.Contains(err.Error(), "a.yaml:") || !strings.Contains(err.Error(), key+": ") || !strings.Contains(err.Error(), "ipcd.yaml:") {
			t.Errorf("%q: %v", text, err)
		}
	}
	if _, err := loadText(t, "quotas: {users: {alice: {queues: 1}}}", "a.yaml", "quotas: {users: {1000: {queues: 1}}}"); err == nil || !strings.Contains(err.Error(), "uid 1000 stands at") {
		t.Errorf("one user by name and number: %v", err)
	}
}

func TestFilesThatCanNotBeReadSaySo(t *testing.T) {
	path := write(t, "")
	big := make([]byte, fileBytes+1)
	for name, say := range map[string]string{
		filepath.Join(filepath.Dir(path), "none.yaml"): "there is no such file",
		filepath.Dir(path): "it is no file",
	} {
		if _, err := Load(Config{}, name); err == nil || !strings.Contains(err.Error(), name+": "+say) {
			t.Errorf("said %v, want %q", err, say)
		}
	}
	if err := os.WriteFile(path, big, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Config{}, path); err == nil || !strings.Contains(err.Error(), "larger than 256KiB") {
		t.Errorf("said %v", err)
	}
	if os.Geteuid() == 0 {
		return // may read everything
	}
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Config{}, path); err == nil || !strings.Contains(err.Error(), "can not be read by uid") {
		t.Errorf("said %v", err)
	}
}

func TestPipesInConfDAreNotWaitedFor(t *testing.T) {
	path := write(t, "", "b.yaml", "log_level: warn")
	pipe := filepath.Join(filepath.Dir(path), dirName, "a.yaml")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Config{}, path); err == nil || !strings.Contains(err.Error(), "a.yaml: it is no file") {
		t.Errorf("said %v", err)
	}
}

func TestConfDMustBeADirectoryOfNotTooManyFiles(t *testing.T) {
	path := write(t, "")
	dir := dirBeside(path)
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(Config{}, path); err == nil || !strings.Contains(err.Error(), "conf.d: ") {
		t.Errorf("said %v", err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range filesInDir + 1 {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i, suffix)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(Config{}, path); err == nil || !strings.Contains(err.Error(), "there may be 256") {
		t.Errorf("said %v", err)
	}
}

func TestFilesWithAnotherSuffixAreWarnedOf(t *testing.T) {
	c := loaded(t, "", "a.yml", "x: 1")
	if len(c.Warnings) != 1 || !strings.Contains(c.Warnings[0], "a.yml: it is not read") {
		t.Errorf("%q", c.Warnings)
	}
}
