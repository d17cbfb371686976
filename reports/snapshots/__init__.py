"""Snapshots (抓拍): pictures that cameras take of the street, classified, sifted, confirmed or rejected by a person.

A camera's finding becomes a case only after a person has confirmed it. A snapshot is acknowledged when its picture is
on the disk and its document in the database; everything after that is a debt of the document. The states:
``received`` -> ``waiting`` or ``filtered``; ``waiting`` -> ``confirmed``, ``rejected`` or ``expired``.
"""
