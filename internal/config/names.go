package config

import (
	"errors"
	"fmt"
	"os/user"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/ipcd/ipcd/internal/limits"
)

// The rules for names are those of the queues and rings themselves.
var (
	namePattern     = regexp.MustCompile(fmt.Sprintf(`^/[A-Za-z0-9_-][A-Za-z0-9._-]{0,%d}$`, limits.NameLength-1))
	typeNamePattern = regexp.MustCompile(fmt.Sprintf(`^[A-Za-z_][A-Za-z0-9._-]{0,%d}$`, limits.TypeNameLength-1))
	globPattern     = regexp.MustCompile(`^[A-Za-z0-9._*?\[\]^\\-]+$`)
)

func goodName(name string) bool { return namePattern.MatchString(name) }

func badName(thing, name string) string {
	return fmt.Sprintf("%s name %s: it must be a slash and then 1 to %d of A-Z a-z 0-9 . _ -, not starting with a dot", thing, quote(name), limits.NameLength)
}

// patternLength is how many bytes a pattern may have.
const patternLength = 1024

// parsePattern reads a pattern over names of queues or rings. The slash in front may be left out, as everywhere; what
// is returned has none.
func parsePattern(text string) (any, string) {
	pattern := strings.TrimPrefix(text, "/")
	if _, err := path.Match(pattern, ""); err != nil || pattern == "" || len(text) > patternLength {
		return nil, "pattern " + quote(text) + " is malformed: use * ? and [a-z], as in /jobs.*"
	}
	if !globPattern.MatchString(pattern) {
		return nil, "pattern " + quote(text) + " matches no name: names are made of A-Z a-z 0-9 . _ -"
	}
	return pattern, ""
}

func wrongCertificatePattern(text string) string {
	if _, err := path.Match(text, ""); err != nil || text == "" || len(text) > patternLength {
		return "pattern " + quote(text) + " is malformed: use * ? and [a-z], as in spiffe://example.org/*"
	}
	return ""
}

func quote(text string) string { return fmt.Sprintf("%.80q", text) }

func contains(words []string, word string) bool { return slices.Contains(words, word) }

// account is a local user.
type account struct {
	uid    uint32
	gid    uint32
	groups []uint32
	known  bool // it is in the user database, and not just a number
}

// directory is where users and groups are looked up.
type directory interface {
	user(nameOrUID string) (account, error)
	group(nameOrGID string) (gid uint32, err error)
}

// errUnknown is for who is not there, or not any more.
var errUnknown = errors.New("there is none of this name")

// system is the users and groups of this host. Each name is looked up once.
type system struct {
	users  map[string]account
	groups map[string]uint32
}

func newSystem() *system {
	return &system{users: map[string]account{}, groups: map[string]uint32{}}
}

func (s *system) user(name string) (account, error) {
	if a, ok := s.users[name]; ok {
		return a, nil
	}
	a, err := lookUpUser(name)
	if err == nil {
		s.users[name] = a
	}
	return a, err
}

// lookUpUser finds a user by name or uid. A uid need not be in the user database: those of containers are not.
func lookUpUser(name string) (account, error) {
	var found *user.User
	uid, err := parseID(name)
	number := err == nil
	if number {
		found, err = user.LookupId(name)
	} else if found, err = user.Lookup(name); err == nil {
		uid, err = parseID(found.Uid)
	}
	var noName user.UnknownUserError
	var noID user.UnknownUserIdError
	switch {
	case errors.As(err, &noID) && number:
		return account{uid: uid}, nil
	case errors.As(err, &noName):
		return account{}, errUnknown
	case err != nil:
		return account{}, err
	}
	a := account{uid: uid, known: true}
	if a.gid, err = parseID(found.Gid); err != nil {
		return account{}, err
	}
	groups, err := found.GroupIds()
	if err != nil {
		return account{}, fmt.Errorf("its groups: %w", err)
	}
	for _, g := range groups {
		gid, err := parseID(g)
		if err != nil {
			return account{}, err
		}
		a.groups = append(a.groups, gid)
	}
	return a, nil
}

func (s *system) group(name string) (uint32, error) {
	if gid, err := parseID(name); err == nil {
		return gid, nil
	}
	if gid, ok := s.groups[name]; ok {
		return gid, nil
	}
	found, err := user.LookupGroup(name)
	var unknown user.UnknownGroupError
	if errors.As(err, &unknown) {
		return 0, errUnknown
	}
	if err != nil {
		return 0, err
	}
	gid, err := parseID(found.Gid)
	if err == nil {
		s.groups[name] = gid
	}
	return gid, err
}

// parseID reads a uid or gid. The largest is none: to chown(2) it means "leave it as it is".
func parseID(text string) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, err
	}
	if n == 1<<32-1 {
		return 0, fmt.Errorf("%d is no id", n)
	}
	return uint32(n), nil
}
