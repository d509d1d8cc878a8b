#!/bin/sh
# Builds frameworks-edge_<version>_<architecture>.deb: the agent with all that it needs, its service, its settings.
#
#   infra/packaging/deb.sh OUTPUT_DIR [--without-dependencies]
#
# For the Python that builds it (PYTHON, else python3) and the machine's own architecture: some of what is inside is compiled.
# The versions are those of requirements.lock. --without-dependencies: our own files alone, to look at.
set -eu

here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname "$(dirname "$here")")
output=${1:?"usage: deb.sh OUTPUT_DIR [--without-dependencies]"}
python=${PYTHON:-python3}
minor=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
next=$("$python" -c 'import sys; print("%d.%d" % (sys.version_info[0], sys.version_info[1] + 1))')
version=$("$python" -c 'import sys, tomllib; print(tomllib.load(open(sys.argv[1], "rb"))["project"]["version"])' "$root/pyproject.toml")
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
package=$work/package
library=opt/frameworks-edge/lib

# A copy: building leaves files beside the sources.
mkdir -p "$work/source" "$package/$library"
for part in pyproject.toml README.md LICENSE schemas streams commands projections gateway edge_agent infra; do
    cp -R "$root/$part" "$work/source/"
done
if [ "${2:-}" = --without-dependencies ]; then
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-compile \
        --target "$package/$library" "$work/source"
else
    sed -n 's/^\([A-Za-z0-9._-]*==[^ ]*\).*/\1/p' "$root/requirements.lock" > "$work/constraints"
    "$python" -m pip install --quiet --disable-pip-version-check --only-binary :all: --no-compile \
        --constraint "$work/constraints" --target "$package/$library" "$work/source"
fi
# The command is ours, below; caches depend on the machine.
rm -rf "$package/$library/bin"
find "$package/$library" -name __pycache__ -type d -prune -exec rm -rf {} +

mkdir -p "$package/usr/bin" "$package/lib/systemd/system" "$package/etc/frameworks" "$package/DEBIAN"
cat > "$package/usr/bin/fw" << END
#!/bin/sh
exec /usr/bin/python$minor -I -c 'import sys; sys.path.insert(0, "/$library"); sys.argv[0] = "fw"; from infra.cli import main; main()' "\$@"
END
chmod 755 "$package/usr/bin/fw"
cp "$here/frameworks-edge.service" "$package/lib/systemd/system/"
cp "$here/edge.toml" "$here/edge.env" "$package/etc/frameworks/"
chmod 644 "$package/lib/systemd/system/frameworks-edge.service" "$package/etc/frameworks/edge.toml"
chmod 640 "$package/etc/frameworks/edge.env"

cat > "$package/DEBIAN/control" << END
Package: frameworks-edge
Version: $version
Architecture: $architecture
Maintainer: FrameWorks maintainers <maintainers@frameworks.invalid>
Depends: python3 (>= $minor), python3 (<< $next), passwd
Recommends: systemd
Section: video
Priority: optional
Installed-Size: $(du -sk "$package" | cut -f1)
Description: FrameWorks edge agent
 The daemon beside a MistServer: answers its triggers, remembers what they
 said, and tells the platform. After installing: fw edge enroll --help.
END
printf '/etc/frameworks/edge.toml\n/etc/frameworks/edge.env\n' > "$package/DEBIAN/conffiles"
cat > "$package/DEBIAN/postinst" << 'END'
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    if ! getent passwd frameworks-edge > /dev/null; then
        useradd --system --user-group --home-dir /var/lib/frameworks-edge --no-create-home --shell /usr/sbin/nologin frameworks-edge
    fi
    install -d -m 0700 -o frameworks-edge -g frameworks-edge /var/lib/frameworks-edge
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        # An upgrade: the new version takes over. A first installation waits for `fw edge enroll`.
        systemctl try-restart frameworks-edge.service
    fi
fi
END
cat > "$package/DEBIAN/prerm" << 'END'
#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now frameworks-edge.service
fi
END
cat > "$package/DEBIAN/postrm" << 'END'
#!/bin/sh
set -e
# The journal may hold facts that the platform does not have: it goes only when everything shall.
if [ "$1" = purge ]; then
    rm -rf /var/lib/frameworks-edge
fi
if [ -d /run/systemd/system ]; then
    systemctl daemon-reload
fi
END
chmod 755 "$package/DEBIAN/postinst" "$package/DEBIAN/prerm" "$package/DEBIAN/postrm"
mkdir -p "$output"
dpkg-deb --root-owner-group -Zgzip --build "$package" "$output/frameworks-edge_${version}_$architecture.deb"
