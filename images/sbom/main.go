// Command sbom prints what an image is made of, as an SPDX 2.3 document.
//
//	sbom -name NAME -version VERSION ITEM…
//
// An ITEM is one of
//
//	deb:NAME@VERSION    a Debian package
//	list:FILE           many of them, one `NAME VERSION ARCHITECTURE` a line
//	PATH                a program: its digest and, if Go built it, the modules in it
//
// The same items give the same document, but for the time: SOURCE_DATE_EPOCH, else now.
package main

import (
	"bufio"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

type document struct {
	Version       string         `json:"spdxVersion"`
	License       string         `json:"dataLicense"`
	ID            string         `json:"SPDXID"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      creation       `json:"creationInfo"`
	Packages      []spdxPackage  `json:"packages"`
	Relationships []relationship `json:"relationships"`
	known         map[string]bool
}

type creation struct {
	Created  string   `json:"created"`
	Creators []string `json:"creators"`
}

type spdxPackage struct {
	ID        string      `json:"SPDXID"`
	Name      string      `json:"name"`
	Version   string      `json:"versionInfo"`
	Location  string      `json:"downloadLocation"`
	Analyzed  bool        `json:"filesAnalyzed"`
	Concluded string      `json:"licenseConcluded"`
	Declared  string      `json:"licenseDeclared"`
	Copyright string      `json:"copyrightText"`
	Checksums []checksum  `json:"checksums,omitempty"`
	External  []reference `json:"externalRefs,omitempty"`
}

type checksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

type reference struct {
	Category string `json:"referenceCategory"`
	Type     string `json:"referenceType"`
	Locator  string `json:"referenceLocator"`
}

type relationship struct {
	From string `json:"spdxElementId"`
	Kind string `json:"relationshipType"`
	To   string `json:"relatedSpdxElement"`
}

const (
	unknown = "NOASSERTION"
	root    = "SPDXRef-image"
)

func main() {
	name := flag.String("name", "", "the image's name")
	version := flag.String("version", "", "the image's version")
	flag.Parse()
	if *name == "" || flag.NArg() == 0 {
		fmt.Fprintln(os.Stderr, "usage: sbom -name NAME -version VERSION deb:NAME@VERSION | list:FILE | PATH …")
		os.Exit(2)
	}
	if err := run(*name, *version, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(name, version string, items []string) error {
	doc := document{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: "SPDXRef-DOCUMENT", Name: name + " " + version,
		Creation: creation{created(), []string{"Tool: knest-images-sbom"}},
		known:    map[string]bool{},
	}
	image := pack(root, name, version, "")
	doc.Packages = append(doc.Packages, image)
	doc.relate(doc.ID, "DESCRIBES", root)
	for _, item := range items {
		if err := doc.item(item); err != nil {
			return err
		}
	}
	parts, err := json.Marshal(doc.Packages)
	if err != nil {
		return err
	}
	doc.Namespace = fmt.Sprintf("https://knest.dev/spdx/%s-%x", url.PathEscape(doc.Name), sha256.Sum256(parts))
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	return out.Encode(doc)
}

func (doc *document) item(item string) error {
	if pair, ok := strings.CutPrefix(item, "deb:"); ok {
		name, version, _ := strings.Cut(pair, "@")
		doc.debian(name, version, "all")
		return nil
	}
	if list, ok := strings.CutPrefix(item, "list:"); ok {
		return doc.list(list)
	}
	return doc.program(item)
}

func (doc *document) list(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) != 3 {
			return fmt.Errorf("%s: %q is not NAME VERSION ARCHITECTURE", path, lines.Text())
		}
		doc.debian(fields[0], fields[1], fields[2])
	}
	return lines.Err()
}

func (doc *document) debian(name, version, architecture string) {
	purl := fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", name, url.PathEscape(version), architecture)
	doc.add(root, pack(id("deb", name, version, architecture), name, version, purl))
}

// program adds the file itself and, below it, the Go modules that went into it.
func (doc *document) program(path string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	digest := sha256.Sum256(content)
	program := pack(id("program", filepath.Base(path), hex.EncodeToString(digest[:8])), filepath.Base(path), unknown, "")
	program.Checksums = []checksum{{"SHA256", hex.EncodeToString(digest[:])}}
	info, err := buildinfo.ReadFile(path)
	if err != nil { // not Go's
		doc.add(root, program)
		return nil
	}
	program.Version = info.Main.Version
	doc.add(root, program)
	doc.module(program.ID, "stdlib", strings.TrimPrefix(info.GoVersion, "go"))
	for _, dep := range info.Deps {
		if dep.Replace != nil {
			dep = dep.Replace
		}
		doc.module(program.ID, dep.Path, dep.Version)
	}
	return nil
}

func (doc *document) module(program, path, version string) {
	purl := fmt.Sprintf("pkg:golang/%s@%s", path, url.PathEscape(version))
	doc.add(program, pack(id("go", path, version), path, version, purl))
}

func (doc *document) add(parent string, p spdxPackage) {
	if !doc.known[p.ID] {
		doc.known[p.ID] = true
		doc.Packages = append(doc.Packages, p)
	}
	doc.relate(parent, "CONTAINS", p.ID)
}

func (doc *document) relate(from, kind, to string) {
	doc.Relationships = append(doc.Relationships, relationship{from, kind, to})
}

func pack(id, name, version, purl string) spdxPackage {
	p := spdxPackage{ID: id, Name: name, Version: version, Location: unknown,
		Concluded: unknown, Declared: unknown, Copyright: unknown}
	if purl != "" {
		p.External = []reference{{"PACKAGE-MANAGER", "purl", purl}}
	}
	return p
}

var illegal = regexp.MustCompile(`[^a-zA-Z0-9.-]+`)

// id makes an SPDX identifier: letters, digits, dots and hyphens.
func id(parts ...string) string {
	return "SPDXRef-" + illegal.ReplaceAllString(strings.Join(parts, "-"), "-")
}

func created() string {
	now := time.Now()
	if epoch, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		now = time.Unix(epoch, 0)
	}
	return now.UTC().Format(time.RFC3339)
}
