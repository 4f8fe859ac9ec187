"""Builds the module beside it, where there is a C compiler."""

from setuptools import Extension, setup

setup(py_modules=[], ext_modules=[Extension("artstore_rows", ["artstore_rows.pyx"])])
