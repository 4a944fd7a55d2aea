// Command mutants breaks ipcd on purpose, one way after the other, in a copy of the checkout, and expects the tests
// to notice each. It fails if they do not, if a mutant no longer fits the code, or if the tests fail without one.
//
//	go -C tools run ./mutants [-list] [name ...]
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// mutant is one way to break ipcd.
type mutant struct {
	name  string
	about string
	file  string
	old   string // must stand in the file exactly once
	new   string
	tests []string // arguments of go test: one of them must fail
}

func main() {
	list := flag.Bool("list", false, "list the mutants and do nothing")
	flag.Usage = func() {
		fmt.Fprintln(flag.CommandLine.Output(), "usage: mutants [-list] [name ...]\n\nWithout names all are tried.")
		flag.PrintDefaults()
	}
	flag.Parse()
	if *list {
		for _, m := range mutants {
			fmt.Printf("%-28s %s\n", m.name, m.about)
		}
		return
	}
	if err := run(flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

func run(names []string) error {
	chosen, err := choose(names)
	if err != nil {
		return err
	}
	root, err := filepath.Abs("..")
	if err != nil {
		return err
	}
	copied, err := os.MkdirTemp("", "mutants")
	if err != nil {
		return err
	}
	defer os.RemoveAll(copied)
	if err := copyCheckout(root, copied); err != nil {
		return err
	}
	tried := map[string]bool{}
	for _, m := range chosen { // what fails anyway notices nothing
		if key := strings.Join(m.tests, " "); !tried[key] {
			tried[key] = true
			if out, err := test(copied, m.tests); err != nil {
				return fmt.Errorf("go test %s fails without any mutant:\n%s", key, out)
			}
		}
	}
	var missed []string
	for _, m := range chosen {
		began := time.Now()
		noticed, err := try(copied, m)
		if err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
		verdict := "noticed"
		if !noticed {
			verdict = "NOT NOTICED"
			missed = append(missed, m.name)
		}
		fmt.Printf("%-28s %-12s %6.1fs  %s\n", m.name, verdict, time.Since(began).Seconds(), m.about)
	}
	if len(missed) > 0 {
		return fmt.Errorf("%d of %d were not noticed: %s", len(missed), len(chosen), strings.Join(missed, ", "))
	}
	return nil
}

func choose(names []string) ([]mutant, error) {
	if len(names) == 0 {
		return mutants, nil
	}
	var chosen []mutant
	for _, name := range names {
		i := slices.IndexFunc(mutants, func(m mutant) bool { return m.name == name })
		if i < 0 {
			return nil, fmt.Errorf("there is no mutant %q; -list names them", name)
		}
		chosen = append(chosen, mutants[i])
	}
	return chosen, nil
}

// copyCheckout copies what git knows, or would, of the checkout.
func copyCheckout(from, to string) error {
	command := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard", "-z")
	command.Dir = from
	out, err := command.Output()
	if err != nil {
		return fmt.Errorf("git ls-files: %w", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(from, name))
		if os.IsNotExist(err) {
			continue // deleted, and not yet committed
		}
		if err != nil {
			return err
		}
		target := filepath.Join(to, name)
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// try puts a mutant into the copy, tests, and takes it out again.
func try(dir string, m mutant) (noticed bool, err error) {
	path := filepath.Join(dir, m.file)
	content, err := os.ReadFile(path)
	if err != nil {
		return false, err
	}
	if n := bytes.Count(content, []byte(m.old)); n != 1 {
		return false, fmt.Errorf("what it replaces stands %d times in %s: fit it to the code", n, m.file)
	}
	if err := os.WriteFile(path, bytes.Replace(content, []byte(m.old), []byte(m.new), 1), 0o644); err != nil {
		return false, err
	}
	defer os.WriteFile(path, content, 0o644)
	build := exec.Command("go", "vet", "./"+filepath.Dir(m.file))
	build.Dir = dir
	if out, err := build.CombinedOutput(); err != nil {
		return false, fmt.Errorf("it does not compile:\n%s", out)
	}
	_, err = test(dir, m.tests)
	return err != nil, nil
}

func test(dir string, arguments []string) (string, error) {
	command := exec.Command("go", append([]string{"test", "-count=1", "-timeout=10m"}, arguments...)...)
	command.Dir = dir
	out, err := command.CombinedOutput()
	if len(out) > 4000 {
		out = out[len(out)-4000:]
	}
	return string(out), err
}
