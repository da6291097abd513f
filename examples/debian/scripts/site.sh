#!/bin/sh
set -eu
# $SITE and $BUILT come from the template.
printf '%s, built on %s\n' "$SITE" "$BUILT" >/var/www/html/index.html
