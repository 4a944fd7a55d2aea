package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"github.com/ipcd/ipcd/internal/units"
)

// fileBytes is the largest configuration file that is read.
const fileBytes = 1 << 20

// file is a configuration file. What it does not name is nil and stays as it was.
type file struct {
	Socket       *string   `yaml:"socket"`
	AttachSocket *string   `yaml:"attach_socket"`
	Listen       *string   `yaml:"listen"`
	Insecure     *bool     `yaml:"insecure"`
	StateDir     *string   `yaml:"state_dir"`
	LogLevel     *string   `yaml:"log_level"`
	StopTimeout  *duration `yaml:"stop_timeout"`

	MaxMemory     *size   `yaml:"max_memory"`
	PayloadMemory *size   `yaml:"payload_memory"`
	MaxDisk       *size   `yaml:"max_disk"`
	KeepFree      *size   `yaml:"keep_free"`
	SegmentSize   *size   `yaml:"segment_size"`
	OnDamage      *string `yaml:"on_damage"`

	RingMemory       *size `yaml:"ring_memory"`
	RingMemoryPerUID *size `yaml:"ring_memory_per_uid"`
}

const fileKeys = "socket, attach_socket, listen, insecure, state_dir, log_level, stop_timeout, " +
	"max_memory, payload_memory, max_disk, keep_free, segment_size, on_damage, ring_memory, ring_memory_per_uid"

// size is written as units.ParseSize reads it.
type size int64

// UnmarshalYAML reads a number of bytes, with a unit or without.
func (s *size) UnmarshalYAML(text []byte) error {
	parsed, err := units.ParseSize(strings.Trim(strings.TrimSpace(string(text)), `"'`))
	if err != nil {
		return err
	}
	*s = size(parsed)
	return nil
}

// duration is written as time.ParseDuration reads it.
type duration time.Duration

// UnmarshalYAML reads a duration with its unit; a bare number would leave the unit to guessing.
func (d *duration) UnmarshalYAML(text []byte) error {
	parsed, err := time.ParseDuration(strings.Trim(strings.TrimSpace(string(text)), `"'`))
	if err != nil {
		return fmt.Errorf("%.40q is no duration: write a number with its unit, such as 10s or 1m30s", bytes.TrimSpace(text))
	}
	*d = duration(parsed)
	return nil
}

// Load changes c by the YAML file at path. A key that is unknown, comes twice or has a value of the wrong
// kind is an error that names the line.
func (c *Config) Load(path string) error {
	text, err := readFile(path)
	if err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := c.parse(text); err != nil {
		return fmt.Errorf("configuration %s: %w", path, err)
	}
	return nil
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fileBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > fileBytes {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, fileBytes)
	}
	return text, nil
}

func (c *Config) parse(text []byte) error {
	var f file
	decoder := yaml.NewDecoder(bytes.NewReader(text), yaml.Strict())
	if err := decoder.Decode(&f); err != nil && !errors.Is(err, io.EOF) {
		return explain(err)
	}
	if err := decoder.Decode(new(any)); err == nil {
		return errors.New("a second document (after ---): there must be one")
	}
	set(&c.Socket, f.Socket)
	set(&c.AttachSocket, f.AttachSocket)
	set(&c.Listen, f.Listen)
	set(&c.Insecure, f.Insecure)
	set(&c.StateDir, f.StateDir)
	set(&c.LogLevel, f.LogLevel)
	set(&c.MaxMemory, (*int64)(f.MaxMemory))
	set(&c.PayloadMemory, (*int64)(f.PayloadMemory))
	set(&c.MaxDisk, (*int64)(f.MaxDisk))
	set(&c.KeepFree, (*int64)(f.KeepFree))
	set(&c.SegmentSize, (*int64)(f.SegmentSize))
	set(&c.OnDamage, f.OnDamage)
	set(&c.RingMemory, (*int64)(f.RingMemory))
	set(&c.RingMemoryPerUID, (*int64)(f.RingMemoryPerUID))
	if f.StopTimeout != nil {
		c.StopTimeout = time.Duration(*f.StopTimeout)
	}
	return nil
}

func set[T any](to *T, from *T) {
	if from != nil {
		*to = *from
	}
}

// explain puts the line in front and, for an unknown key, says which are known.
func explain(err error) error {
	var e yaml.Error
	if !errors.As(err, &e) {
		return err
	}
	message := e.GetMessage()
	if token := e.GetToken(); token != nil && token.Position != nil {
		message = fmt.Sprintf("line %d: %s", token.Position.Line, message)
	}
	var unknown *yaml.UnknownFieldError
	if errors.As(err, &unknown) {
		message += "; allowed are " + fileKeys
	}
	return errors.New(message)
}
