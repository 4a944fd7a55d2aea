package config

import (
	"slices"
	"testing"
)

func TestChangesAreSplitByWhatTheyNeed(t *testing.T) {
	base := `
log_level: info
rules: [{queues: [a], users: [alice], allow: [look]}]
quotas: {users: {alice: {queues: 1}}}
queues: {/a: {lease: 1s}}
tls: {cert: /c, key: /k, client_ca: /a, users: {x: alice}}
`
	old := loaded(t, base)
	for text, want := range map[string][2][]string{
		base: {},
		"# moved\n\n" + base + "socket: /run/ipcd/ipcd.sock\n":       {},
		base + "stop_timeout: 1s\nadmin_group: adm\nrings: {/a: }\n": {{"stop_timeout", "admin_group", "rings"}, nil},
		base + "socket: /x\nhttp: localhost:1\nmax_disk: 1GiB\n":     {nil, {"socket", "http", "max_disk"}},
		base + "insecure: true\nstate_dir: /x\n":                     {nil, {"insecure", "state_dir"}},
		"":                                                           {{"tls", "rules", "quotas", "queues"}, nil},
		`
log_level: warn
rules: [{queues: [a], users: [bob], allow: [look]}]
quotas: {users: {alice: {queues: 2}}}
queues: {/a: {lease: 2s}}
tls: {cert: /c, key: /k, client_ca: /a, users: {x: bob}}
`: {{"log_level", "tls", "rules", "quotas", "queues"}, nil},
	} {
		now, err := loadText(t, text)
		if err != nil {
			t.Fatal(err)
		}
		if live, restart := Changes(&old, &now); !slices.Equal(live, want[0]) || !slices.Equal(restart, want[1]) {
			t.Errorf("%q: live %q, restart %q; want %q", text, live, restart, want)
		}
	}
}

func TestEmptyFileIsNoChange(t *testing.T) {
	old, now := Default(0, env()), loaded(t, "tls: {users: {}}\nrules: []\nqueues: {}\n")
	if live, restart := Changes(&old, &now); len(live)+len(restart) > 0 {
		t.Errorf("live %q, restart %q", live, restart)
	}
}

func TestEveryKeyOfConfigIsCompared(t *testing.T) {
	sample := uncommented(t)
	now := loaded(t, sample)
	old := Default(0, env())
	live, restart := Changes(&old, &now)
	for _, k := range Keys {
		changed := slices.Contains(live, k.Name) || slices.Contains(restart, k.Name)
		if example := k.Default == ""; changed != example {
			t.Errorf("%s: changed %v", k.Name, changed)
		}
		if slices.Contains(live, k.Name) && !k.Live {
			t.Errorf("%s needs a restart", k.Name)
		}
	}
}
