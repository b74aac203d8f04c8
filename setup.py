"""What ``pyproject.toml`` cannot say: a plugin that is installed into Twisted's own package.

``twisted/plugins`` is listed as a package without ``__init__.py``: its one file lands at
``twisted/plugins/smtpproxy_plugin.py`` beside Twisted's own plugins, where ``twistd`` looks for it.
``package_dir`` makes an editable install put this folder on the import path as a whole, so that the
plugin is found there too.
"""

from setuptools import find_packages, setup

setup(
    package_dir={"": "."},
    packages=[*find_packages(include=["smtpproxy", "smtpproxy.*"]), "twisted.plugins"],
    package_data={"smtpproxy": ["py.typed"]},
    include_package_data=False,
    zip_safe=False,
)
