# docker buildx bake release: the image for amd64 and arm64, with its list of parts (SBOM) and how it
# was built (provenance), pushed to IMAGE. docker build makes the same one for this machine alone.
variable "IMAGE" {
  default = "friendlyhello"
}

variable "VERSION" {
  default = "latest"
}

variable "COMMIT" {
  default = ""
}

target "default" {
  context = "."
  args    = { COMMIT = COMMIT }
  tags    = ["${IMAGE}:${VERSION}"]
}

target "release" {
  inherits  = ["default"]
  platforms = ["linux/amd64", "linux/arm64"]
  attest    = ["type=sbom", "type=provenance,mode=max"]
  output    = ["type=registry"]
}
