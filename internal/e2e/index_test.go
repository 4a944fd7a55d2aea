//go:build linux

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// items are those of the semantics that this version promises: all.
var items = []int{
	1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
}

const lastItem = 31

var (
	testName = regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]*)((?:_S[0-9]+)*)\(`)
	itemName = regexp.MustCompile(`_S([0-9]+)`)
)

// itemsTested adds the tests in a source to those of each item.
func itemsTested(source string, tests map[int][]string) {
	for _, test := range testName.FindAllStringSubmatch(source, -1) {
		for _, item := range itemName.FindAllStringSubmatch(test[2], -1) {
			n, _ := strconv.Atoi(item[1]) // the pattern allows digits alone
			tests[n] = append(tests[n], test[1]+test[2])
		}
	}
}

func TestEveryItemOfTheSemanticsHasATest(t *testing.T) {
	t.Parallel()
	tests := map[int][]string{}
	root := filepath.Join("..", "..")
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || path == filepath.Join(root, "build") || path == filepath.Join(root, "bin")):
			return fs.SkipDir
		case !strings.HasSuffix(path, "_test.go"):
			return nil
		}
		source, err := os.ReadFile(path)
		itemsTested(string(source), tests)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range items {
		if len(tests[item]) == 0 {
			t.Errorf("item %d of the semantics has no test: no test's name ends with _S%d", item, item)
		}
	}
	for item, names := range tests {
		if item < 1 || item > lastItem {
			t.Errorf("the semantics have no item %d: %q", item, names)
		}
	}
}

func TestMissingItemIsNoticed(t *testing.T) {
	t.Parallel()
	tests := map[int][]string{}
	itemsTested("func TestA_S1_S16(t *testing.T) {\n// _S2 in words\n\tx_S3()\n}\nfunc helper_S4() {}\nfunc TestB(t *testing.T) {", tests)
	if len(tests) != 2 || len(tests[1]) != 1 || len(tests[16]) != 1 || tests[1][0] != "TestA_S1_S16" {
		t.Errorf("found %v, want the items 1 and 16 of TestA_S1_S16", tests)
	}
}
