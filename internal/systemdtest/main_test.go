//go:build linux

// Package systemdtest tests ipcd as operators meet it: its Debian package under a systemd that has really booted, in a
// container of Debian 12 (systemd-nspawn). `make test-systemd` runs it; without its variable every test is skipped. It wants
// root, debootstrap, systemd-container and, for the package, what `make deb` wants. The root file system of Debian is
// fetched once, and kept in ROOT's place:
//
//	IPCD_SYSTEMD_TEST=1             run
//	IPCD_SYSTEMD_ROOT=DIRECTORY     Debian's root file system, by default in the user's cache; made if it is not there
//	IPCD_SYSTEMD_MIRROR=URL         where Debian is fetched from
//
// Each test boots a machine of its own on an overlay of that root, and looks into it with nsenter(1): machined, which other
// tools ask, need not be there. Run it with CGO_ENABLED=0: the program of the tests runs in the machine too.
package systemdtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	enableVariable = "IPCD_SYSTEMD_TEST"
	rootVariable   = "IPCD_SYSTEMD_ROOT"
	mirrorVariable = "IPCD_SYSTEMD_MIRROR"

	// roleVariable makes a process of this program one of the programs that use ipcd in the machine.
	roleVariable = "IPCD_SYSTEMD_ROLE"
)

// patience is how long anything may take that must happen. Nothing waits for it to pass unless it fails.
const patience = 90 * time.Second

// The versions of the package that are built: of the same code, for what is tested is the change of one for the other.
const (
	oldVersion = "0.0.1"
	newVersion = "0.0.2"
)

func TestMain(m *testing.M) {
	if role := os.Getenv(roleVariable); role != "" {
		os.Exit(runRole(role, os.Args[1:]))
	}
	code := m.Run()
	if packages.directory != "" {
		os.RemoveAll(packages.directory)
	}
	os.Exit(code)
}

// progress says what goes on: the tests take minutes.
func progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%s  %s\n", time.Now().Format(time.TimeOnly), fmt.Sprintf(format, args...))
}

// rootFS returns the root file system of Debian 12 on which machines are laid, and makes it if need be.
var rootFS = sync.OnceValues(func() (string, error) {
	root := os.Getenv(rootVariable)
	if root == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", err
		}
		root = filepath.Join(cache, "ipcd-test", "bookworm")
	}
	if _, err := os.Stat(root); err == nil {
		return root, nil
	}
	progress("debootstrap makes %s", root)
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return "", err
	}
	unfinished := root + ".unfinished"
	if err := os.RemoveAll(unfinished); err != nil {
		return "", err
	}
	arguments := []string{"--variant=minbase", "--include=systemd,systemd-sysv,dbus", "bookworm", unfinished}
	if mirror := os.Getenv(mirrorVariable); mirror != "" {
		arguments = append(arguments, mirror)
	}
	if output, err := exec.Command("debootstrap", arguments...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("debootstrap: %w\n%s", err, tail(string(output), 20))
	}
	return root, os.Rename(unfinished, root)
})

// packages are the Debian packages under test by version, each built once.
var packages struct {
	directory string
	built     map[string]error
}

// debian returns the path of ipcd's package of a version.
func debian(t *testing.T, version string) string {
	t.Helper()
	if packages.directory == "" {
		var err error
		if packages.directory, err = os.MkdirTemp("", "ipcd-systemd"); err != nil {
			t.Fatal(err)
		}
		packages.built = map[string]error{}
	}
	err, done := packages.built[version]
	if !done {
		err = build(version, packages.directory)
		packages.built[version] = err
	}
	if err != nil {
		t.Fatal(err)
	}
	return packagePath(packages.directory, version)
}

// build makes the package of a version in a directory.
func build(version, directory string) error {
	progress("building the package %s", version)
	cmd := exec.Command(filepath.Join("..", "..", "deploy", "debian", "build"), runtime.GOARCH)
	cmd.Env = append(os.Environ(), "VERSION="+version, "DIST="+directory)
	if output, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("deploy/debian/build: %w\n%s", err, output)
	}
	return nil
}

func packagePath(directory, version string) string {
	return filepath.Join(directory, fmt.Sprintf("ipcd_%s-1_%s.deb", version, runtime.GOARCH))
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// tail returns the last lines of text.
func tail(text string, lines int) string {
	all := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
