package rules

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func isDocument(name string) bool { return strings.HasSuffix(name, ".md") }

// personalPath matches paths that exist on one machine only.
var personalPath = regexp.MustCompile(`/(home|root|Users|work)/[A-Za-z0-9]`)

func TestDocumentsNameNoMachinePaths(t *testing.T) {
	for _, name := range files(t, isDocument) {
		if found := personalPath.Find(read(t, name)); found != nil {
			t.Errorf("%s names a path of somebody's machine: %s", name, found)
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)

func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	for _, name := range files(t, isDocument) {
		for _, m := range link.FindAllSubmatch(read(t, name), -1) {
			target := string(m[1])
			if strings.Contains(target, "://") {
				continue
			}
			file := path.Join(path.Dir(name), target)
			if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(file))); err != nil {
				t.Errorf("%s links to %s, which is not there", name, target)
			}
		}
	}
}

// TestArchitectureNamesEveryRoom keeps ARCHITECTURE.md from forgetting a package.
func TestArchitectureNamesEveryRoom(t *testing.T) {
	text := string(read(t, "ARCHITECTURE.md"))
	for room := range rooms {
		if !strings.Contains(text, room) {
			t.Errorf("ARCHITECTURE.md does not mention %s", room)
		}
	}
}

var requirement = regexp.MustCompile(`(?m)^\t(\S+) (v\S+)( // indirect)?$`)

// TestArchitectureListsDependencies holds the table of dependencies against go.mod: every direct one is
// there, with the version that is pinned.
func TestArchitectureListsDependencies(t *testing.T) {
	text := string(read(t, "ARCHITECTURE.md"))
	pinned := map[string]string{}
	for _, m := range requirement.FindAllStringSubmatch(string(read(t, "go.mod")), -1) {
		pinned[m[1]] = m[2]
		if m[3] == "" && !strings.Contains(text, "| "+m[1]+" |") {
			t.Errorf("ARCHITECTURE.md gives no reason for %s", m[1])
		}
	}
	rows := regexp.MustCompile(`(?m)^\| (\S+\.\S+/\S+) \| (\S+) \|`).FindAllStringSubmatch(text, -1)
	if len(rows) == 0 {
		t.Error("ARCHITECTURE.md has no table of dependencies")
	}
	for _, row := range rows {
		if pinned[row[1]] != row[2] {
			t.Errorf("ARCHITECTURE.md says %s %s, go.mod %q", row[1], row[2], pinned[row[1]])
		}
	}
}
