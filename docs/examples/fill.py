"""Fills a histogram and keeps it in a file; the argument is the number of the job."""

import sys

import ROOT

number = int(sys.argv[1])
with ROOT.TFile.Open(f"fill-{number}.root", "RECREATE"):
    histogram = ROOT.TH1F("h", "A Gaussian", 50, -4, 4)
    ROOT.gRandom.SetSeed(1 + number)
    histogram.FillRandom("gaus", 1000)
    histogram.Write()
    print(f"job {number}: {int(histogram.GetEntries())} entries")
