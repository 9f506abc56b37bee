# docker buildx bake release: the image for amd64 and arm64, with its list of parts (SBOM) and how it
# was built (provenance), pushed to IMAGE. docker buildx bake makes it for this machine alone.
variable "IMAGE" {
  default = "friendlyhello"
}

variable "VERSION" {
  default = "latest"
}

variable "COMMIT" {
  default = ""
}

# Where the source is, https://… without a slash at its end. Without it the labels do not say.
variable "SOURCE" {
  default = ""
}

variable "DOCUMENTATION" {
  default = "${SOURCE}/tree/${COMMIT}/docs"
}

# What Dockerfile makes, but for a check that Docker older than 25 cannot read.
target "plain" {
  context = "."
  args = {
    COMMIT        = COMMIT
    SOURCE        = SOURCE
    CREATED       = timestamp()
    DOCUMENTATION = DOCUMENTATION
  }
}

target "default" {
  contexts = { plain = "target:plain" }
  # As in Dockerfile, but until the container is healthy, the check runs five times a second. So the
  # container is healthy within a second.
  dockerfile-inline = <<END
FROM plain
HEALTHCHECK --interval=4s --timeout=3s --retries=2 --start-period=10s --start-interval=200ms \
  CMD ["python", "server.py", "--healthcheck"]
END
  tags = ["${IMAGE}:${VERSION}"]
}

target "plain-release" {
  inherits  = ["plain"]
  platforms = ["linux/amd64", "linux/arm64"]
}

target "release" {
  inherits  = ["default"]
  contexts  = { plain = "target:plain-release" }
  platforms = ["linux/amd64", "linux/arm64"]
  attest    = ["type=sbom", "type=provenance,mode=max"]
  output    = ["type=registry"]
}
