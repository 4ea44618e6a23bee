"""The programs for large trees and tensors still do what they do, on small ones; large.py has the sizes that count.

    large_test.py BUILD_DIR
"""

import large
from load import TestCase, harness


class Large(TestCase):
    def test_small(self):
        large.main(["--leaves=2000", "--mib=4", "--operate=1000", "--of=1500"])


harness.main()
