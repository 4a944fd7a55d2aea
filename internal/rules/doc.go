// Package rules holds the tests of what is true of the repository as a whole: who may import whom,
// what stays free of I/O, how files are formatted, what the documents may say.
package rules
