module knest.dev/images/sbom

go 1.26.0
