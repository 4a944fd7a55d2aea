// Package proto checks that the committed code is what the .proto files say.
package proto

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

// differences tells how the generated Go files in committed differ from those in fresh.
func differences(t *testing.T, committed, fresh fs.FS) []string {
	t.Helper()
	have, want := generated(t, committed), generated(t, fresh)
	var found []string
	for name := range want {
		switch data, ok := have[name]; {
		case !ok:
			found = append(found, name+" is missing")
		case !bytes.Equal(data, want[name]):
			found = append(found, name+" is out of date")
		}
	}
	for name := range have {
		if _, ok := want[name]; !ok {
			found = append(found, name+" is left over: no .proto file makes it")
		}
	}
	slices.Sort(found)
	return found
}

func generated(t *testing.T, tree fs.FS) map[string][]byte {
	t.Helper()
	content := map[string][]byte{}
	err := fs.WalkDir(tree, ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(name, ".pb.go") {
			content[name], err = fs.ReadFile(tree, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestGeneratedCodeIsUpToDate(t *testing.T) {
	out := t.TempDir()
	cmd := exec.Command("go", "-C", "../tools", "run", "./protogen", "../proto", out)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, output)
	}
	fresh := os.DirFS(out)
	if len(generated(t, fresh)) == 0 {
		t.Fatal("protogen wrote nothing")
	}
	for _, wrong := range differences(t, os.DirFS("."), fresh) {
		t.Errorf("%s: run make proto", wrong)
	}
}

func TestStaleCodeIsNoticed(t *testing.T) {
	fresh := fstest.MapFS{"a/a.pb.go": {Data: []byte("1")}, "a/b.pb.go": {Data: []byte("2")}}
	committed := maps.Clone(fresh)
	committed["a/doc.go"] = &fstest.MapFile{}
	if found := differences(t, committed, fresh); found != nil {
		t.Errorf("equal trees differ: %v", found)
	}
	committed["a/a.pb.go"] = &fstest.MapFile{Data: []byte("0")}
	committed["c.pb.go"] = &fstest.MapFile{}
	delete(committed, "a/b.pb.go")
	want := []string{"a/a.pb.go is out of date", "a/b.pb.go is missing", "c.pb.go is left over: no .proto file makes it"}
	if found := differences(t, committed, fresh); !slices.Equal(found, want) {
		t.Errorf("found %q, want %q", found, want)
	}
}
