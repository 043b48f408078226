/// Every text for people: a key of the app's String Catalog, Localizable.xcstrings, in each language.
public enum TextKey: String, CaseIterable, Sendable {
  // Drawing
  case appName, draw, cancel, close, prompt, promptHint, negative, negativeHint, choices, steps, guidance
  case guidanceNone, sampler, seed, seedWrong, newSeed, keepSeed, useSeed, defaults, photo, photoText, photoChoose
  case photoChosen, photoRemove, strength, empty, emptyNoBundle, noBundle, preview, pictureOf, pictureFacts
  case pictureTime, save, saved, share, cut, cutNegative, oneByOne, fallback, interrupted, drawAgainLess

  // The phone
  case phone, memory, memoryLeft, memoryLess, memoryShort, leastMemory, heatNormal, heatWarm, heatHot, heatCritical
  case heatUnknown, savingPower, otherTarget, lessMemory, unit, unitDefault, unitCpu, unitGpu, unitAne, unitOther
  case unitLeftOut, unitUntested

  // Work that goes on
  case workOpen, workImport, workDownload, workTest, stagePrompt, stagePhoto, stageDenoise, stageDecode
  case stageOpening, stageOpeningText, stepOf, perStep, timeLeft, partOf, separator, verbatim, milliseconds, seconds
  case minutes, megabytes, gigabytes

  // Bundles
  case bundles, bundlesNone, chosen, use, useLabel, delete, deleteQuestion, forget, forgetQuestion, madeFor
  case originShipped, originShared, originOwn, originPicked, addBundle, pick, pickText, address, addressHint
  case addressWrong, download, downloadResume, downloadBroken, downloadBrokenAnew

  // Is it the same model?
  case tabSame, sameModel, testIntro, testRun, testAgain, verdictSame, verdictOther, verdictNone
  case verdictSameText, verdictOtherText, verdictNoneText, unitsUnused, original, thisPhone, decibels, equal
  case notFinite, pictureEqual, pictureUnseen, pictureNear
  case pictureFar, pictureNone, controlsNearer, controlsFurther, controlsOwnNearer, controlsOwnFurther, controlsNone
  case controlSeed, controlSteps, controlPrompt, controlOwnSeed, controlOwnSteps, controlOwnPrompt, graphs
  case graphsText, graphOn, graphFacts, graphTime, passed, failed, vectors, vectorsAll, vectorsSome, shareReport

  // Licences
  case credits, licence, version, aboutText

  // Errors
  case cancelled, cancelledText, errorNotWhole, errorNotWholeText, faultMissing, faultExtra, faultLink, faultSize
  case faultContent, errorNotABundle, errorNotABundleText, errorVersion, errorVersionNewerText
  case errorVersionOlderText, errorRefusal, errorRefusalText, errorUnreadable, errorUnreadableText, errorDownload
  case errorDownloadText, errorStorage, errorStorageText, errorContradiction, errorContradictionText, errorProof
  case errorProofText, errorNoProof, errorNoProofText, errorRequest, errorRequestText, errorEngine, errorEngineText
  case errorEngineOld, errorEngineOldText, errorNotHere, errorNotHereText, errorUnit, errorUnitText, errorUnitBad
  case errorUnitBadText, errorNotFinite, errorNotFiniteText, errorMemory, errorMemoryText, errorPhoto
  case errorNotKept, errorNotKeptText
  case errorPhotoText, errorNotSaved, errorNotSavedText, errorAddress, errorUnexpected, errorUnexpectedText
}
